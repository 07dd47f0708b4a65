package viewfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// Locks are forwarded to the backing file, so that those taken through the view and those taken beside it (by VMs from
// before the mount, by other hosts) meet: QEMU's own "Failed to get lock" works across the view.
//
// The kernel names the owner of a lock: the process for fcntl(F_SETLK), the open file for F_OFD_SETLK and flock(2).
// Each owner gets a descriptor of the backing file of its own and its locks are taken on that as OFD locks: owners
// conflict with each other as they should, and closing the descriptor drops what it holds. The kernel sends no unlock
// when the last descriptor of an open file goes, only RELEASE; and FLUSH with the process as owner at every close(2).

// lockOwner holds the locks of one owner on one file; guarded by node.mu.
type lockOwner struct {
	fd      int
	pid     uint32
	handles map[uint64]uint32 // the handles that it has locked through, and their slots in the lock table
}

// GetLk tells who stands in the way of a lock.
func (fs *FS) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	n := h.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return fuse.EBADF
	}
	own := n.open.locks[in.Owner]
	fd := -1
	if own != nil {
		fd = own.fd
	} else {
		var err error
		if fd, err = fs.openLock(h); err != nil {
			return fuse.ToStatus(err)
		}
		defer unix.Close(fd)
	}
	lk := flockOf(&in.Lk)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lk); err != nil {
		return fuse.ToStatus(err)
	}
	out.Lk = lockOf(&lk)
	if lk.Type != unix.F_UNLCK {
		out.Lk.Pid = n.open.holderOf(lk, own)
	}
	return fuse.OK
}

// holderOf finds whose lock it is: the owner that sees no conflict where the others do. 0: somebody beside the view.
func (o *openState) holderOf(lk unix.Flock_t, but *lockOwner) uint32 {
	for _, other := range o.locks {
		if other == but {
			continue
		}
		probe := unix.Flock_t{Type: unix.F_WRLCK, Whence: lk.Whence, Start: lk.Start, Len: lk.Len}
		if err := unix.FcntlFlock(uintptr(other.fd), unix.F_OFD_GETLK, &probe); err == nil && probe.Type == unix.F_UNLCK {
			return other.pid
		}
	}
	return 0
}

// SetLk takes or drops a lock, or fails at once (EAGAIN).
func (fs *FS) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fuse.Status(fs.setLock(in))
}

// Waiting for a lock asks again and again: a thread that blocks in fcntl(2) could not be interrupted, and the lock's
// holder may not be ours to hear from.
const (
	lockPauseMin = time.Millisecond
	lockPauseMax = 20 * time.Millisecond
)

// SetLkw takes a lock and waits for it. EINTR: the caller was interrupted.
func (fs *FS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	for pause := lockPauseMin; ; pause = min(2*pause, lockPauseMax) {
		no := fs.setLock(in)
		if no != syscall.EAGAIN && no != syscall.EACCES {
			return fuse.Status(no)
		}
		select {
		case <-cancel:
			return fuse.EINTR
		case <-time.After(pause):
		}
	}
}

func (fs *FS) setLock(in *fuse.LkIn) syscall.Errno {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return no
	}
	n := h.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return syscall.EBADF
	}
	own := n.open.locks[in.Owner]
	if own == nil {
		if in.Lk.Typ == unix.F_UNLCK {
			return 0
		}
		var err error
		if own, err = fs.newLockOwner(n, h, in.Owner); err != nil {
			return errno(err)
		}
	}
	if in.Lk.Pid != 0 {
		own.pid = in.Lk.Pid // the kernel gives none with an unlock
	}
	if no := fs.lockThrough(n, h, in.Owner, own); no != 0 {
		return no
	}
	if in.LkFlags&fuse.LK_FLOCK != 0 {
		return errno(unix.Flock(own.fd, flockHow(in.Lk.Typ)|unix.LOCK_NB))
	}
	lk := flockOf(&in.Lk)
	return errno(unix.FcntlFlock(uintptr(own.fd), unix.F_OFD_SETLK, &lk))
}

func (fs *FS) newLockOwner(n *node, h *handle, owner uint64) (*lockOwner, error) {
	fd, err := fs.openLock(h)
	if err != nil {
		return nil, err
	}
	own := &lockOwner{fd: fd, handles: map[uint64]uint32{}}
	if n.open.locks == nil {
		n.open.locks = map[uint64]*lockOwner{}
	}
	n.open.locks[owner] = own
	return own, nil
}

// lockThrough notes that the owner locks through this handle, and gives the keeper the descriptor: it cannot be had
// again, for the lock is on it.
func (fs *FS) lockThrough(n *node, h *handle, owner uint64, own *lockOwner) syscall.Errno {
	if _, ok := own.handles[h.fh]; ok {
		return 0
	}
	slot, ok := fs.locks.Add(&state.Lock{Node: n.id, Owner: owner, FH: h.fh, PID: own.pid})
	if !ok {
		return syscall.ENOLCK
	}
	if err := fs.keeper.Keep(lockName(slot), own.fd); err != nil {
		fs.log.Warn("cannot keep a lock for a successor", "error", err)
		fs.locks.Remove(slot)
		return syscall.ENOLCK
	}
	own.handles[h.fh] = slot
	return 0
}

// openLock opens the handle's file once more. For reading and writing, because one owner may lock through several
// handles; the kernel has checked that each lock fits the descriptor that it is taken on. A file that cannot be opened
// for writing (read-only file system, a program that runs) is opened as the handle is.
func (fs *FS) openLock(h *handle) (int, error) {
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(fs.procFd, fdName(h.fd), unix.O_RDWR|flags, 0)
	if err != nil {
		return unix.Openat(fs.procFd, fdName(h.fd), h.flags&unix.O_ACCMODE|flags, 0)
	}
	return fd, nil
}

// unlockOwner drops all locks of an owner on a file.
func (fs *FS) unlockOwner(n *node, owner uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return
	}
	if own := n.open.locks[owner]; own != nil {
		fs.dropOwner(n, owner, own)
	}
}

// dropLocks drops the locks of the owners that have locked through this handle alone; the node is locked.
func (fs *FS) dropLocks(n *node, h *handle) {
	for owner, own := range n.open.locks {
		slot, ok := own.handles[h.fh]
		switch {
		case !ok:
		case len(own.handles) == 1:
			fs.dropOwner(n, owner, own)
		default:
			delete(own.handles, h.fh)
			fs.forgetLock(slot)
		}
	}
}

func (fs *FS) forgetLock(slot uint32) {
	fs.locks.Remove(slot)
	fs.keeper.Drop(lockName(slot))
}

// dropOwner unlocks first: the keeper has the descriptor too, and closes it a moment later.
func (fs *FS) dropOwner(n *node, owner uint64, own *lockOwner) {
	all := unix.Flock_t{Type: unix.F_UNLCK}
	_ = unix.FcntlFlock(uintptr(own.fd), unix.F_OFD_SETLK, &all)
	_ = unix.Flock(own.fd, unix.LOCK_UN)
	unix.Close(own.fd)
	delete(n.open.locks, owner)
	for _, slot := range own.handles {
		fs.forgetLock(slot)
	}
}

func flockHow(typ uint32) int {
	switch typ {
	case unix.F_RDLCK:
		return unix.LOCK_SH
	case unix.F_WRLCK:
		return unix.LOCK_EX
	}
	return unix.LOCK_UN
}

// The kernel gives a range as its first and last byte; the last of a lock to the end of the file is OFFSET_MAX.
const offsetMax = 1<<63 - 1

func flockOf(lk *fuse.FileLock) unix.Flock_t {
	f := unix.Flock_t{Type: int16(lk.Typ), Start: int64(lk.Start)}
	if lk.End != offsetMax {
		f.Len = int64(lk.End - lk.Start + 1)
	}
	return f
}

func lockOf(f *unix.Flock_t) fuse.FileLock {
	lk := fuse.FileLock{Typ: uint32(f.Type), Start: uint64(f.Start), End: offsetMax}
	if f.Len != 0 {
		lk.End = uint64(f.Start + f.Len - 1)
	}
	return lk
}
