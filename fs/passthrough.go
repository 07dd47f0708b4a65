package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// Kernel passthrough: reads, writes and mmap go from the kernel to the backing file without us (Linux ≥ 6.9). The
// kernel's rules, measured on 6.18: one backing id per inode while any handle is open, and every open of the inode must
// carry it, else the open is EIO. The kernel reopens the backing file with each caller's flags, so one id serves all
// modes. FOPEN_DIRECT_IO beside FOPEN_PASSTHROUGH sends that one handle's reads and writes to us: a checked handle.

// wantsPassthrough says whether an inode's reads and writes are to travel through the kernel, for its first open. A set-id file
// does not: the kernel would write to it with our credentials, and the set-id bits would stay.
func (fs *FS) wantsPassthrough(mode uint32) bool {
	const setid = unix.S_ISUID | unix.S_ISGID
	return fs.passthrough.Load() && mode&setid == 0
}

// register gives the kernel the backing file of a node, and returns the id for its handles, 0 if the kernel refuses:
// then this inode goes through the daemon while it is open, and the next open is another try. The node is locked.
//
// A kernel that takes an O_PATH descriptor (since 6.17) holds no more than the inode by it, as we do by ours, so the id
// is kept until the kernel forgets the node. From an older one, which wants an open file, it is taken back with the last
// handle: an open file would keep the file's blocks, and keep programs in it from being run.
func (fs *FS) register(n *node, fd int) int32 {
	if n.backing != 0 {
		return n.backing
	}
	if path := n.fd.Load(); path != noFd && !fs.backingNeedsFile.Load() {
		id, err := fs.registerFd(int(path))
		if err == nil {
			return fs.setBacking(n, id)
		}
		if err != unix.EBADF {
			fs.passthroughFailed(err)
			return 0
		}
		fs.backingNeedsFile.Store(true)
	}
	id, err := fs.registerFd(fd)
	if err != nil {
		fs.passthroughFailed(err)
		return 0
	}
	return fs.setBacking(n, id)
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

// setBacking notes an id, at its node first: what is above the highest that was noted, and no node's, is nobody's.
func (fs *FS) setBacking(n *node, id int32) int32 {
	fs.nodes.records.SetBacking(n.slot, id)
	fs.region.RaiseBackingID(id)
	n.backing = id
	return id
}

// closed is called when the last handle of a node has gone; the node is locked.
func (fs *FS) closed(n *node) {
	if n.backing != 0 && fs.backingNeedsFile.Load() {
		fs.unregister(n)
	}
}

// unregister takes back a node's backing id. It is marked as about to go, by its sign, so that a successor does not
// answer with an id that is gone, nor forget one that is not.
func (fs *FS) unregister(n *node) {
	fs.nodes.records.SetBacking(n.slot, -n.backing)
	if no := fs.srv.UnregisterBackingFd(n.backing); no != 0 {
		fs.log.Warn("kernel would not take back a backing id", "id", n.backing, "errno", no)
	}
	n.backing = 0
	fs.nodes.records.SetBacking(n.slot, 0)
}

// passthroughFailed notes a refusal by the kernel. EPERM, EOPNOTSUPP and ELOOP (a backing file system that is stacked
// itself) are said once and do not pass; anything else is this file's own.
func (fs *FS) passthroughFailed(err error) {
	switch err {
	case unix.EPERM, unix.EOPNOTSUPP, unix.ELOOP, unix.ENOTTY:
		if fs.passthrough.Swap(false) {
			fs.log.Info("kernel passthrough is off: reads and writes go through the daemon", "cause", err)
		}
	default:
		fs.log.Info("no kernel passthrough for this file", "cause", err)
	}
}

// answerOpen fills the flags that tell the kernel how this handle's reads and writes travel.
func (n *node) answerOpen(h *handle, out *fuse.OpenOut) {
	out.Fh = h.fh
	switch {
	case n.open.backing == 0:
		// No page cache of our own: VMs started before the mount, and other hosts, write beside us.
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	case h.mode&state.ModeChecked != 0:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_DIRECT_IO
		out.BackingID = n.open.backing
	default:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH
		out.BackingID = n.open.backing
	}
}
