// SPDX-License-Identifier: Apache-2.0

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
	a := n.activity()
	if fs.nodes.room(1) != 0 {
		return nil, syscall.ENOLCK
	}
	fd, err := fs.openLock(h)
	if err != nil {
		return nil, err
	}
	fs.nodes.budget.taken.Add(1)
	own := &lockOwner{fd: fd, handles: map[uint64]uint32{}}
	if a.open.locks == nil {
		a.open.locks = map[uint64]*lockOwner{}
	}
	a.open.locks[owner] = own
	a.lockers.Add(1)
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
			fs.guard.TakesLocks(int(own.pid), h.opener.UID)
			return 0
		}
		fs.log.Warn("cannot keep a lock for a successor", "error", err)
		fs.locks.Remove(slot)
	}
	if len(own.handles) == 0 {
		fs.nodes.closeFd(fs.dropOwner(n, owner, own)) // it is new, and nothing would end it; the handle keeps the file
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

// unlockOwner drops all locks that an owner has on a handle's file, because one of the handle's descriptors was closed. If
// it was the last one, locks of other owners go, too, as soon as the RELEASE arrives.
//
// It does not wait for whoever asks the guard about this node. The guard looks at every process in /proc, and a process
// that is in execve(2) cannot be looked at while it closes its descriptors (exec_update_lock, seen on 6.18): it waits for
// this very answer.
func (fs *FS) unlockOwner(h *handle, owner uint64) {
	n := h.node
	a := n.activity()
	if a.lockers.Load() == 0 {
		return
	}
	a.mu.Lock()
	closing := noFd
	if a.open != nil && len(a.open.locks) > 0 {
		if own := a.open.locks[owner]; own != nil {
			closing = fs.dropOwner(n, owner, own)
		}
		now := time.Now()
		h.leaving = now.Add(releaseDelay)
		fs.handles.records.SetClosed(h.slot, now)
	}
	a.mu.Unlock()
	if closing != noFd {
		fs.nodes.closeFd(closing)
	}
}

// dropLocks drops the locks of the owners that have locked through this handle alone, and returns what is to be closed;
// the node is locked.
func (fs *FS) dropLocks(n *node, h *handle) (closing []int) {
	for owner, own := range n.activity().open.locks {
		slot, ok := own.handles[h.fh]
		switch {
		case !ok:
		case len(own.handles) == 1:
			closing = append(closing, fs.dropOwner(n, owner, own))
		default:
			delete(own.handles, h.fh)
			fs.forgetLock(slot)
		}
	}
	return closing
}

// forgetLock has the keeper drop the descriptor before the slot is free: the next owner to get the slot has its
// descriptor kept under the same name.
func (fs *FS) forgetLock(slot uint32) {
	fs.keeper.Drop(lockName(slot))
	fs.locks.Remove(slot)
}

// dropOwner unlocks first: the keeper has the descriptor too, and closes it a moment later. It returns what is to be
// closed when the node, which is locked, is locked no more.
func (fs *FS) dropOwner(n *node, owner uint64, own *lockOwner) (closing int) {
	a := n.activity()
	unlockAll(own.fd)
	delete(a.open.locks, owner)
	a.lockers.Add(-1)
	fs.nodes.budget.taken.Add(-1)
	for _, slot := range own.handles {
		fs.forgetLock(slot)
	}
	return own.fd
}

// unlockAll drops what is locked through a descriptor, of which others may have duplicates.
func unlockAll(fd int) {
	all := unix.Flock_t{Type: unix.F_UNLCK}
	_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &all)
	_ = unix.Flock(fd, unix.LOCK_UN)
}
