// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 NodeWrapChilder wraps every node in another inode; a fault is per loopback node, which NewNode makes.

// Package testfault shows directories as file systems on which reads, writes and flushes fail when a test says so.
package testfault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/copy/internal/testimg"
	"imgward/test/need"
)

// Faults decides what goes wrong on a faulty file system. Operations are counted by name, from 1.
type Faults struct {
	mu    sync.Mutex
	seen  map[string]int
	fails func(op string, n int) syscall.Errno // 0: this one works
	Short atomic.Bool                          // reads and writes do half of what they are asked for
	// Corrupts says whether the n-th write flips a bit on its way to the medium.
	Corrupts func(n int) bool
}

// next counts an operation.
func (f *Faults) next(op string) (n int, errno syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[op]++
	if f.fails != nil {
		errno = f.fails(op, f.seen[op])
	}
	return f.seen[op], errno
}

func (f *Faults) Count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[op]
}

// Again starts counting anew, with other faults.
func (f *Faults) Again(fails func(op string, n int) syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.fails = map[string]int{}, fails
}

// Mount shows dir as a file system with those faults. Nothing is cached: every request arrives.
func Mount(t *testing.T, dir string, f *Faults) string {
	t.Helper()
	f.seen = map[string]int{}
	root := &fs.LoopbackRoot{Path: dir}
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &faultyNode{LoopbackNode: fs.LoopbackNode{RootData: r}, faults: f}
	}
	return mountFUSE(t, root.NewNode(root, nil, "", nil))
}

// mountFUSE mounts until the test ends. The connection is aborted then: somebody's new mount namespace may hold a second
// copy of the mount, and the server would wait for that for ever.
func mountFUSE(t *testing.T, root fs.InodeEmbedder) string {
	t.Helper()
	need.Have(t, need.View()...)
	mnt := t.TempDir()
	o := &fs.Options{MountOptions: fuse.MountOptions{FsName: "faulty", DirectMount: true}}
	server, err := fs.Mount(mnt, root, o)
	if err != nil {
		t.Fatal(err)
	}
	abort := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", unix.Minor(testimg.Stat(t, mnt).Dev))
	t.Cleanup(func() {
		err := errors.Join(unix.Unmount(mnt, unix.MNT_DETACH), os.WriteFile(abort, []byte("1"), 0))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // the unmount alone ended it
			t.Error(err)
		}
		server.Wait()
	})
	return mnt
}

type faultyNode struct {
	fs.LoopbackNode
	faults *Faults
}

func (n *faultyNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_DIRECT)
	return &faultyFile{h, n.faults}, fuse.FOPEN_DIRECT_IO, errno
}

func (n *faultyNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if _, errno := n.faults.next("create"); errno != 0 {
		return nil, nil, 0, errno
	}
	node, h, _, errno := n.LoopbackNode.Create(ctx, name, flags&^syscall.O_DIRECT, mode, out)
	return node, &faultyFile{h, n.faults}, fuse.FOPEN_DIRECT_IO, errno
}

func (n *faultyNode) Rename(ctx context.Context, name string, to fs.InodeEmbedder, toName string, flags uint32) syscall.Errno {
	if _, errno := n.faults.next("rename"); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, to, toName, flags)
}

func (n *faultyNode) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, flags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	return &faultyDir{h.(fullDir), n.faults}, flags, errno
}

// fullDir is what the loopback's directory handle can do.
type fullDir interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
	fs.FileFsyncdirer
}

type faultyDir struct {
	fullDir
	faults *Faults
}

func (d *faultyDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	if _, errno := d.faults.next("fsync-dir"); errno != 0 {
		return errno
	}
	return d.fullDir.Fsyncdir(ctx, flags)
}

func (n *faultyNode) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, errno := n.faults.next("setattr"); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

// CopyFileRange is left to our own reads and writes.
func (n *faultyNode) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.EOPNOTSUPP
}

// faultyFile is an open file.
type faultyFile struct {
	fs.FileHandle
	faults *Faults
}

func (f *faultyFile) Read(ctx context.Context, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if _, errno := f.faults.next("read"); errno != 0 {
		return nil, errno
	}
	if f.faults.Short.Load() && len(b) > 4096 {
		b = b[:len(b)/2]
	}
	return f.FileHandle.(fs.FileReader).Read(ctx, b, off)
}

func (f *faultyFile) Write(ctx context.Context, b []byte, off int64) (uint32, syscall.Errno) {
	n, errno := f.faults.next("write")
	if errno != 0 {
		return 0, errno
	}
	if f.faults.Short.Load() && len(b) > 4096 {
		b = b[:len(b)/2]
	}
	if f.faults.Corrupts != nil && f.faults.Corrupts(n) {
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 0x10
	}
	return f.FileHandle.(fs.FileWriter).Write(ctx, b, off)
}

func (f *faultyFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if _, errno := f.faults.next("fsync"); errno != 0 {
		return errno
	}
	return f.FileHandle.(fs.FileFsyncer).Fsync(ctx, flags)
}

func (f *faultyFile) Release(ctx context.Context) syscall.Errno {
	return f.FileHandle.(fs.FileReleaser).Release(ctx)
}

func (f *faultyFile) Flush(context.Context) syscall.Errno {
	_, errno := f.faults.next("flush")
	return errno
}

func (f *faultyFile) Getattr(ctx context.Context, out *fuse.AttrOut) syscall.Errno {
	return f.FileHandle.(fs.FileGetattrer).Getattr(ctx, out)
}

func (f *faultyFile) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	return f.FileHandle.(fs.FileLseeker).Lseek(ctx, off, whence)
}

func (f *faultyFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if _, errno := f.faults.next("fallocate"); errno != 0 {
		return errno
	}
	return f.FileHandle.(fs.FileAllocater).Allocate(ctx, off, size, mode)
}

// MountBad shows dir as a medium on which [off, off+n) of every file cannot be read, until so many reads have failed.
func MountBad(t *testing.T, dir string, off, n int64, heals int) string {
	t.Helper()
	root := &fs.LoopbackRoot{Path: dir}
	bad := &badRange{off: off, end: off + n, heals: heals}
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &badNode{fs.LoopbackNode{RootData: r}, bad}
	}
	return mountFUSE(t, root.NewNode(root, nil, "", nil))
}

type badRange struct {
	mu       sync.Mutex
	off, end int64
	heals    int
	failed   int
}

func (b *badRange) fails(off, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off >= b.end || off+n <= b.off || b.heals > 0 && b.failed >= b.heals {
		return false
	}
	b.failed++
	return true
}

type badNode struct {
	fs.LoopbackNode
	bad *badRange
}

func (n *badNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_DIRECT)
	return &badFile{faultyFile{h, &Faults{seen: map[string]int{}}}, n.bad}, fuse.FOPEN_DIRECT_IO, errno
}

type badFile struct {
	faultyFile
	bad *badRange
}

func (f *badFile) Read(ctx context.Context, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if f.bad.fails(off, int64(len(b))) {
		return nil, syscall.EIO
	}
	return f.faultyFile.Read(ctx, b, off)
}
