// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// Kernel passthrough: reads, writes and mmap go from the kernel to the backing file without us (Linux ≥ 6.9). The
// kernel's rules, measured on 6.18: one backing id per inode while any handle is open, and every open of the inode must
// carry it, else the open is EIO. The kernel reopens the backing file with each caller's flags, so one id serves all
// modes. FOPEN_DIRECT_IO beside FOPEN_PASSTHROUGH sends that one handle's reads and writes to us: a checked handle.

// wantsPassthrough says whether an inode's reads and writes are to travel through the kernel, for its first open. A set-id file
// does not: the kernel would write to it with our credentials, and the set-id bits would stay.
func (fs *FS) wantsPassthrough(st *syscall.Stat_t) bool {
	if !fs.passthrough.Load() || setID(st.Mode) {
		return false
	}
	_, not := fs.notPassed.Load(st.Dev)
	return !not
}

// register gives the kernel the backing file of a node. If the kernel refuses, this inode goes through the daemon while it
// is open, and the next open is another try. The node is locked.
//
// A kernel that takes an O_PATH descriptor (since 6.17) holds no more than the inode by it, as we do by ours, so the id
// is kept until the kernel forgets the node. From an older one, which wants an open file, it is taken back with the last
// handle: an open file would keep the file's blocks, and keep programs in it from being run.
func (fs *FS) register(n *node, fd int, dev uint64) bool {
	a := n.activity()
	if a.backing != 0 {
		return true
	}
	var id int32
	err := error(unix.EBADF)
	if !fs.backingNeedsFile.Load() {
		if id, err = fs.registerPath(n, fd); err == unix.EBADF {
			fs.backingNeedsFile.Store(true)
		}
	}
	if err == unix.EBADF {
		id, err = fs.registerFd(fd)
	}
	if err != nil {
		fs.passthroughFailed(err, dev)
		return false
	}
	// At its node first: what is above the highest that was noted, and no node's, is nobody's.
	fs.nodes.records.SetBacking(n.slot(), id)
	fs.region.RaiseBackingID(id)
	a.backing = id
	return true
}

// aligned says whether a process's O_DIRECT may go by the backing file, whose flags the kernel keeps as they were at the
// open. Others turn O_DIRECT off for a last block that is not whole (GNU dd), or count on a file system that takes any;
// the daemon falls back to a descriptor without.
func aligned(p *guard.Process) bool {
	return p.Class == guard.ClassVMM || p.Aligned
}

// registerPath registers the node's own descriptor, or, if none is kept, one of the file that is being opened.
func (fs *FS) registerPath(n *node, fd int) (int32, error) {
	if path, ok := n.path.use(); ok {
		defer fs.nodes.used(n)
		return fs.registerFd(path)
	}
	path, err := pathOfFile(fd)
	if err != nil {
		return 0, err
	}
	defer unix.Close(path)
	return fs.registerFd(path)
}

// registerFd registers a descriptor. The kernel keeps the credentials of this moment for its writes: without CAP_FSETID
// they clear set-id bits.
func (fs *FS) registerFd(fd int) (id int32, err error) {
	err = withoutFsetid(func() error {
		var no syscall.Errno
		if id, no = fs.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)}); no != 0 {
			return no
		}
		return nil
	})
	return id, err
}

// unregister takes back a node's backing id, unless something is open. It is marked as about to go, by its sign, so that a successor does not
// answer with an id that is gone, nor forget one that is not.
func (fs *FS) unregister(n *node) {
	a := n.active()
	if a == nil {
		return
	}
	a.mu.Lock()
	id := a.backing
	if a.open != nil {
		id = 0
	}
	a.backing -= id
	if id != 0 {
		fs.nodes.records.SetBacking(n.slot(), -id)
	}
	a.mu.Unlock()
	if id == 0 {
		return
	}
	// Not with the lock held: if the kernel was the last to hold a removed file, its blocks are freed in here.
	if no := fs.srv.UnregisterBackingFd(id); no != 0 {
		fs.log.Warn("kernel would not take back a backing id", "id", id, "errno", no)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.backing == 0 { // nobody has opened it meanwhile
		fs.nodes.records.SetBacking(n.slot(), 0)
	}
}

// passthroughFailed notes a refusal by the kernel. EPERM and ENOTTY do not pass. EOPNOTSUPP and ELOOP (a file system that is
// stacked itself, as overlayfs) are true of the file's whole file system, which may be one of several below the view. These
// are said once; anything else is this file's own.
func (fs *FS) passthroughFailed(err error, dev uint64) {
	switch err {
	case unix.EOPNOTSUPP, unix.ELOOP:
		if !fs.nodes.mounts.root(dev) {
			if _, known := fs.notPassed.Swap(dev, nil); !known {
				fs.log.Info("no kernel passthrough for a file system below the view: its reads and writes go through the daemon",
					"device", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)), "cause", err)
			}
			return
		}
		fallthrough
	case unix.EPERM, unix.ENOTTY:
		if fs.passthrough.Swap(false) {
			fs.log.Info("kernel passthrough is off: reads and writes go through the daemon", "cause", err)
		}
	default:
		fs.log.Info("no kernel passthrough for this file", "cause", err)
	}
}

// answerOpen fills the flags that tell the kernel how this handle's reads and writes travel.
func (n *node) answerOpen(h *handle, out *fuse.OpenOut) {
	a := n.activity()
	out.Fh = h.fh
	switch {
	case !a.open.passed:
		// No page cache of our own: VMs started before the mount, and other hosts, write beside us.
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	case h.mode&(state.ModeChecked|state.ModeUnaligned) != 0:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_DIRECT_IO
		out.BackingID = a.backing
	default:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH
		out.BackingID = a.backing
	}
}
