// SPDX-License-Identifier: Apache-2.0

// Package viewfs is the view: a FUSE file system over one backing tree that passes every operation through to the real
// files, and asks the guard before those that would destroy an image in use.
//
// # Layout
//
// Each family of operations has a file: lookup, attr, create, remove, rename, open, io, alloc, dir, xattr, lock, ioctl.
// All of them work on descriptors: a node stands for an inode (node.go), at.go turns a node and a name into a
// descriptor and a name, judge.go asks the guard. What must outlive the process is in package state; start.go is how a worker
// starts, restore.go how it takes over from a predecessor, session.go how it serves.
//
// # Verbs
//
//	acquire, release   begin and end the use of a node's descriptor, or of a place; release of a handle closes it (RELEASE)
//	detach             takes a handle out of its node and table; what it held is closed by whoever detached it
//	remember, forget   count and take back the kernel's lookups of a node (LOOKUP, FORGET)
//	retire             gives up, with nothing locked, what a node held that the kernel has forgotten
//	evict, end         give up such nodes themselves, when there are too many; remove takes one out of the table
//	shed               closes descriptors of nodes that can be had again
//	keep, drop         give the keeper a descriptor, and have it let go of one
//	register, unregister   give the kernel a backing file, and take it back
package viewfs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"imgward/fs/state"
	"imgward/guard"
	"imgward/guard/calls"
)

// Keeper holds descriptors for a successor, in another process.
type Keeper interface {
	// Keep sends a descriptor to be kept under a name, which replaces one of that name. When it returns without an
	// error, the descriptor is safe even if this process ends at once. The caller's own copy stays the caller's.
	Keep(name string, fd int) error
	// Drop forgets a name. It does not fail: what cannot be dropped is only kept too long.
	Drop(name string)
}

// FS is one view. It implements fuse.RawFileSystem; operations lists what that takes.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS for what is not in operations

	ctx      context.Context
	log      *slog.Logger
	guard    guard.Checker
	keeper   Keeper
	host     *Host
	walks    calls.Keyed // paths that evidence names
	srv      *fuse.Server
	region   *state.Region
	nodes    *nodeTable
	handles  *handleTable
	locks    *state.Locks
	intents  *state.Intents
	reflinks reflinks

	procFd      int  // /proc/self/fd
	remote      bool // the backing tree is on a network file system
	passthrough atomic.Bool
	notPassed   sync.Map    // st_dev of file systems below the view that the kernel passes nothing through to
	lastKnown   atomic.Bool // the last LOOKUP found a file that was known; see lookup
	// backingNeedsFile is set where the kernel registers open files only, not O_PATH descriptors.
	backingNeedsFile atomic.Bool
}

// operations is all that the view implements. What is missing is answered ENOSYS, which the kernel takes as "do it
// without": ACCESS (the kernel checks permissions itself, default_permissions), POLL, BMAP.
type operations interface {
	Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status
	Forget(nodeid, nlookup uint64)
	GetAttr(cancel <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status
	Statx(cancel <-chan struct{}, input *fuse.StatxIn, out *fuse.StatxOut) fuse.Status
	SetAttr(cancel <-chan struct{}, input *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status // guarded: size
	StatFs(cancel <-chan struct{}, input *fuse.InHeader, out *fuse.StatfsOut) fuse.Status

	Mknod(cancel <-chan struct{}, input *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status
	Mkdir(cancel <-chan struct{}, input *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status
	Symlink(cancel <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status
	Link(cancel <-chan struct{}, input *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status
	Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status // guarded
	Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status
	Rename(cancel <-chan struct{}, input *fuse.RenameIn, oldName, newName string) fuse.Status // guarded
	Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status)

	Create(cancel <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status // guarded
	Tmpfile(cancel <-chan struct{}, input *fuse.CreateIn, out *fuse.CreateOut) fuse.Status
	Open(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status // guarded
	Release(cancel <-chan struct{}, input *fuse.ReleaseIn)
	Read(cancel <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status)
	Write(cancel <-chan struct{}, input *fuse.WriteIn, data []byte) (uint32, fuse.Status) // guarded: checked handles
	Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status
	Flush(cancel <-chan struct{}, input *fuse.FlushIn) fuse.Status
	Fsync(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status
	Fallocate(cancel <-chan struct{}, input *fuse.FallocateIn) fuse.Status                                    // guarded
	CopyFileRange(cancel <-chan struct{}, input *fuse.CopyFileRangeIn) (uint32, fuse.Status)                  // guarded
	Ioctl(cancel <-chan struct{}, input *fuse.IoctlIn, in []byte, out *fuse.IoctlOut, buf []byte) fuse.Status // guarded: flags

	GetLk(cancel <-chan struct{}, input *fuse.LkIn, out *fuse.LkOut) fuse.Status
	SetLk(cancel <-chan struct{}, input *fuse.LkIn) fuse.Status
	SetLkw(cancel <-chan struct{}, input *fuse.LkIn) fuse.Status

	GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status)
	ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status)
	SetXAttr(cancel <-chan struct{}, input *fuse.SetXAttrIn, attr string, data []byte) fuse.Status
	RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status

	OpenDir(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status
	ReadDir(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status
	ReadDirPlus(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status
	ReleaseDir(input *fuse.ReleaseIn)
	FsyncDir(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status
}

var _ operations = (*FS)(nil)

// capabilities is what the kernel is asked for beyond go-fuse's own choice.
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | // a truncating open is one request, refused as one
	fuse.CAP_ASYNC_DIO | // without it, 4k random writes at depth 32 reach 0.29 of native
	fuse.CAP_HANDLE_KILLPRIV_V2 | // else every write asks for security.capability
	fuse.CAP_DONT_MASK | // a default ACL takes the umask's place
	fuse.CAP_EXPORT_SUPPORT | // open_by_handle_at on the view
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | // MAP_SHARED without passthrough
	fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PARALLEL_DIROPS

// fuseOptions are go-fuse's. The mount itself is ours.
func fuseOptions(log *slog.Logger, stacked bool) *fuse.MountOptions {
	depth := 1
	if stacked {
		depth = 2 // the backing file system is an overlay itself
	}
	return &fuse.MountOptions{
		Name:              "imgward",
		MaxWrite:          maxRequest,
		MaxBackground:     256, // for all VMs of a view together: one disk's queue alone is 128 deep
		EnableLocks:       true,
		EnableAcl:         true,
		ExtraCapabilities: capabilities,
		MaxStackDepth:     depth,
		DisableSplice:     true, // loopsplice.go does
		Logger:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// maxRequest is the largest read or write that the kernel sends in one request.
const maxRequest = state.MaxPayload

// Init is called when INIT has been answered.
func (fs *FS) Init(srv *fuse.Server) {
	fs.srv = srv
	const want = fuse.CAP_PASSTHROUGH
	if srv.KernelSettings().Flags64()&want == 0 {
		fs.passthrough.Store(false)
	}
}

// OnUnmount is called when the kernel has ended the connection.
func (fs *FS) OnUnmount() {}

// String names the file system in go-fuse's messages.
func (fs *FS) String() string { return "imgward" }

// SetDebug does nothing; go-fuse asks for it.
func (fs *FS) SetDebug(bool) {}

// Passthrough says whether new opens are passed through by the kernel, on the file system of the view's root at least.
func (fs *FS) Passthrough() bool { return fs.passthrough.Load() }
