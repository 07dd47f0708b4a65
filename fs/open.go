package viewfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// Open opens a regular file. With CAP_ATOMIC_O_TRUNC a truncating open is one request, refused as one: the daemon
// truncates, at the moment of opening, after the verdict.
func (fs *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, no := fs.nodes.get(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	return fuse.Status(fs.openNode(cancel, n, &in.InHeader, int(in.Flags), in.Mode&fuse.OPEN_KILL_SUIDGID != 0, out))
}

// openNode asks the guard, opens the backing file and makes a handle, in one step as far as this inode goes.
func (fs *FS) openNode(cancel <-chan struct{}, n *node, in *fuse.InHeader, flags int, kill bool, out *fuse.OpenOut) syscall.Errno {
	if h := fs.handles.answer(in.Unique); h != nil && h.node == n {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.answerOpen(h, out)
		return 0
	}
	op := guard.OpOpenWrite
	switch {
	case flags&unix.O_TRUNC != 0:
		op = guard.OpTruncate
	case flags&unix.O_ACCMODE == unix.O_RDONLY:
		return fs.openReading(n, in, flags, out)
	}
	v, unlock, no := fs.permit(cancel, in, victim{n: n, op: op})
	if no != 0 {
		return no
	}
	defer unlock()
	var fd int
	if op == guard.OpTruncate {
		fd, no = fs.openTruncating(n, in, flags, kill)
	} else {
		fd, no = fs.openBacking(n, flags, callerOf(in), kill)
	}
	if no != 0 {
		return no
	}
	return fs.openedNamed(n, fd, flags, v.CheckWrites, in, out)
}

// openTruncating truncates and opens. A predecessor that truncated, but did not live to note a handle, has left an intent:
// then nothing is truncated again, for somebody may have written since.
func (fs *FS) openTruncating(n *node, in *fuse.InHeader, flags int, kill bool) (int, syscall.Errno) {
	size := func() uint64 {
		fd, release, no := fs.nodes.acquire(n)
		if no != 0 {
			return 0
		}
		defer release()
		return sizeOf(fd)
	}
	left, end := fs.once(in, size())
	_, no, ok := became(left)
	if ok && no == 0 || !ok && left != nil && resized(left.Words[0], size(), 0) {
		flags &^= unix.O_TRUNC
	}
	fd, no := fs.openBacking(n, flags, callerOf(in), kill)
	end(0, no)
	return fd, no
}

// openReading opens for reading, which is free: the node is locked only to note the handle, so that the release of the
// one before, which is on its way, need not wait.
func (fs *FS) openReading(n *node, in *fuse.InHeader, flags int, out *fuse.OpenOut) syscall.Errno {
	fd, no := fs.openBacking(n, flags, callerOf(in), false)
	if no != 0 {
		return no
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return fs.openedNamed(n, fd, flags, false, in, out)
}

// openedNamed is opened for a file that was found by its name. If it has lost that beside the view, and the kernel does
// not know yet, what is written would be lost without an error: ESTALE has the kernel look the name up again. What was
// removed through the view while it was being opened is opened all the same, and so is a file that is open (/proc/PID/fd).
func (fs *FS) openedNamed(n *node, fd, flags int, check bool, in *fuse.InHeader, out *fuse.OpenOut) syscall.Errno {
	var st syscall.Stat_t
	if n.open == nil && !n.removed && fstat(fd, &st) == nil && st.Nlink == 0 {
		unix.Close(fd)
		return syscall.ESTALE
	}
	return fs.opened(n, fd, flags, check, in, out)
}

// openBacking opens the backing file with the caller's flags.
func (fs *FS) openBacking(n *node, flags int, c caller, kill bool) (fd int, no syscall.Errno) {
	if !n.regular() {
		return -1, syscall.ENXIO // the kernel opens special files itself
	}
	path, release, no := fs.nodes.acquire(n)
	if no != 0 {
		return -1, no
	}
	defer release()
	open := func() (err error) {
		fd, err = fs.reopen(path, flags)
		return err
	}
	if flags&unix.O_TRUNC != 0 {
		no = errno(c.killing(kill, path, open))
	} else {
		no = errno(open())
	}
	return fd, no
}

// opened makes a handle of fd, which it takes over, and tells the kernel of it; the node is locked.
func (fs *FS) opened(n *node, fd, flags int, check bool, in *fuse.InHeader, out *fuse.OpenOut) syscall.Errno {
	h := &handle{
		node:   n,
		fd:     fd,
		flags:  flags &^ (unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC),
		unique: in.Unique &^ resendBit,
		opener: fs.guard.Classify(int(in.Pid), in.Uid),
		since:  time.Now(),
	}
	backing := fs.backingFor(n, fd)
	if backing != 0 {
		h.mode |= state.ModePassthrough
	}
	if check {
		h.mode |= state.ModeChecked
	}
	if no := fs.handles.add(h); no != 0 {
		if n.open == nil {
			fs.closed(n)
		}
		unix.Close(fd)
		return no
	}
	n.attach(h)
	n.open.backing = backing
	n.answerOpen(h, out)
	return 0
}

// backingFor is the backing id for an inode's next handle: the one that its open handles have, or a new one. How an
// inode's data travels is decided by its first open, and holds while it is open.
func (fs *FS) backingFor(n *node, fd int) int32 {
	if n.open != nil {
		return n.open.backing
	}
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil || !fs.wantsPassthrough(st.Mode) {
		return 0
	}
	return fs.register(n, fd)
}

// Release closes a handle. The kernel sends it after the caller's close(2) has returned.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h, no := fs.handles.peek(in.Fh); no == 0 {
		fs.release(h)
	}
}
