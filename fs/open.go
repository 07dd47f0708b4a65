// SPDX-License-Identifier: Apache-2.0

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

// roomForHandle says beforehand whether a file can be opened: what is made or truncated first cannot be undone.
func (fs *FS) roomForHandle() syscall.Errno {
	if fs.handles.records.Full() {
		return syscall.ENFILE
	}
	return fs.nodes.room(1)
}

// openNode asks the guard, opens the backing file and makes a handle, in one step as far as this inode goes.
func (fs *FS) openNode(cancel <-chan struct{}, n *node, in *fuse.InHeader, flags int, kill bool, out *fuse.OpenOut) syscall.Errno {
	a := n.activity()
	if h := fs.handles.answer(in.Unique); h != nil && h.node == n {
		a.mu.Lock()
		defer a.mu.Unlock()
		n.answerOpen(h, out)
		return 0
	}
	if no := fs.roomForHandle(); no != 0 {
		return no
	}
	op := guard.OpOpenWrite
	switch {
	case flags&unix.O_TRUNC != 0:
		op = guard.OpTruncate
	case flags&unix.O_ACCMODE == unix.O_RDONLY: // which is free, and waits for nobody
		fd, no := fs.openBacking(n, flags, callerOf(in), false)
		if no != 0 {
			return no
		}
		return fs.opened(n, fd, &opening{flags: flags, named: true, in: in}, out)
	}
	v, unlock, no := fs.permit(cancel, in, victim{n: n, op: op, touches: flags&(unix.O_ACCMODE|unix.O_NONBLOCK) == unix.O_WRONLY|unix.O_NONBLOCK})
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
	return fs.opened(n, fd, &opening{flags: flags, check: v.CheckWrites, inUse: len(v.Uses) > 0, named: true, in: in}, out)
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
	if ok && no == 0 || !ok && left != nil && wasResized(left.Words[0], size(), 0) {
		flags &^= unix.O_TRUNC
	}
	fd, no := fs.openBacking(n, flags, callerOf(in), kill)
	end(0, no)
	return fd, no
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

// opening is how a file was opened.
type opening struct {
	in    *fuse.InHeader
	flags int
	check bool // each write is to be judged
	inUse bool // the image was in use
	named bool // the file was found by its name, not made for this handle
}

// opened makes a handle of fd, which it takes over, and tells the kernel of it.
func (fs *FS) opened(n *node, fd int, o *opening, out *fuse.OpenOut) syscall.Errno {
	h := &handle{
		node:   n,
		fd:     fd,
		flags:  o.flags &^ (unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC),
		unique: o.in.Unique &^ resendBit,
		opener: fs.guard.Classify(int(o.in.Pid), o.in.Uid), // not with mu held: it looks around
		since:  time.Now(),
	}
	no := fs.attachNew(n, h, o, out)
	if no != 0 {
		fs.nodes.closeFd(fd)
		if fs.backingNeedsFile.Load() {
			fs.unregister(n)
		}
	}
	return no
}

func (fs *FS) attachNew(n *node, h *handle, o *opening, out *fuse.OpenOut) syscall.Errno {
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	// How an inode's data travels is decided by its first open, and holds while it is open.
	var passed bool
	if a.open != nil {
		passed = a.open.passed
	} else {
		var st syscall.Stat_t
		known := fstat(h.fd, &st) == nil
		// A file that has lost its name beside the view, and the kernel does not know yet: what is written would be lost
		// without an error. ESTALE has the kernel look the name up again. What was removed through the view while it was
		// being opened is opened all the same, and so is a file that is open (/proc/PID/fd).
		if known && o.named && !a.removed && st.Nlink == 0 {
			return syscall.ESTALE
		}
		passed = known && fs.wantsPassthrough(&st) && fs.register(n, h.fd, st.Dev)
	}
	if passed {
		h.mode |= state.ModePassthrough
	}
	if o.check {
		h.mode |= state.ModeChecked
		if o.inUse {
			h.mode |= state.ModeWhileInUse
		}
	}
	if passed && o.flags&unix.O_DIRECT != 0 && !aligned(&h.opener) {
		h.mode |= state.ModeUnaligned
	}
	if no := fs.handles.add(h); no != 0 {
		return no
	}
	if a.removed {
		if no := fs.keepIfLastName(h); no != 0 {
			fs.handles.remove(h)
			return no
		}
	}
	n.attach(h)
	a.open.passed = passed
	n.answerOpen(h, out)
	if o.named && h.writable() && a.writers.Load() == 1 {
		// What the kernel remembers of the file may be good for a second yet, and a store through a shared mapping would
		// not show in it.
		fs.srv.InodeNotify(n.id, -1, 0)
	}
	return 0
}

// Release closes a handle. The kernel sends it after the caller's close(2) has returned.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h, no := fs.handles.peek(in.Fh); no == 0 {
		fs.release(h)
	}
}
