package viewfs

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// lockOwner holds the locks of one owner on one file; guarded by node.mu.
type lockOwner struct {
	fd      int
	pid     uint32
	handles map[uint64]uint32 // the handles that it has locked through, and their slots in the lock table
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
	n.lockers.Add(1)
	return own, nil
}

// lockThrough notes that the owner locks through this handle, and gives the keeper the descriptor: it cannot be had
// again, for the lock is on it.
func (fs *FS) lockThrough(n *node, h *handle, owner uint64, own *lockOwner) syscall.Errno {
	if _, ok := own.handles[h.fh]; ok {
		return 0
	}
	slot, ok := fs.locks.Add(&state.Lock{Node: n.id, Owner: owner, FH: h.fh, PID: own.pid})
	if ok {
		err := fs.keeper.Keep(lockName(slot), own.fd)
		if err == nil {
			own.handles[h.fh] = slot
			return 0
		}
		fs.log.Warn("cannot keep a lock for a successor", "error", err)
		fs.locks.Remove(slot)
	}
	if len(own.handles) == 0 {
		fs.dropOwner(n, owner, own) // it is new, and nothing would end it
	}
	return syscall.ENOLCK
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

// How long a close(2) waits for the node's lock, and how often it looks.
const (
	flushPatience = 100 * time.Millisecond
	flushPause    = time.Millisecond
)

// unlockOwner drops all locks that an owner has on a handle's file, because one of the handle's descriptors was closed. If
// it was the last one, locks of other owners go, too, as soon as the RELEASE arrives.
//
// It must not wait for whoever asks the guard about this node. The guard looks at every process in /proc, and a process
// that is in execve(2) cannot be looked at while it closes its descriptors (exec_update_lock, seen on 6.18): it waits for
// this very answer. So what cannot be done at once is done when the lock is free.
func (fs *FS) unlockOwner(h *handle, owner uint64) {
	n := h.node
	if n.lockers.Load() == 0 {
		return
	}
	for end := time.Now().Add(flushPatience); time.Now().Before(end); time.Sleep(flushPause) {
		if n.mu.TryLock() {
			fs.unlockClosed(h, owner)
			n.mu.Unlock()
			return
		}
	}
	go func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		fs.unlockClosed(h, owner)
	}()
}

// unlockClosed is unlockOwner with the node locked.
func (fs *FS) unlockClosed(h *handle, owner uint64) {
	n := h.node
	if n.open == nil || len(n.open.locks) == 0 {
		return
	}
	if own := n.open.locks[owner]; own != nil {
		fs.dropOwner(n, owner, own)
	}
	h.closed = time.Now()
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

// forgetLock has the keeper drop the descriptor before the slot is free: the next owner to get the slot has its
// descriptor kept under the same name.
func (fs *FS) forgetLock(slot uint32) {
	fs.keeper.Drop(lockName(slot))
	fs.locks.Remove(slot)
}

// dropOwner unlocks first: the keeper has the descriptor too, and closes it a moment later.
func (fs *FS) dropOwner(n *node, owner uint64, own *lockOwner) {
	unlockAll(own.fd)
	delete(n.open.locks, owner)
	n.lockers.Add(-1)
	for _, slot := range own.handles {
		fs.forgetLock(slot)
	}
}

// unlockAll drops what is locked through a descriptor, of which others may have duplicates, and closes it.
func unlockAll(fd int) {
	all := unix.Flock_t{Type: unix.F_UNLCK}
	_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &all)
	_ = unix.Flock(fd, unix.LOCK_UN)
	unix.Close(fd)
}
