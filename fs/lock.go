// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Locks are forwarded to the backing file, so that those taken through the view and those taken beside it (by VMs from
// before the mount, by other hosts) meet: QEMU's own "Failed to get lock" works across the view.
//
// The kernel names the owner of a lock: the process for fcntl(F_SETLK), the open file for F_OFD_SETLK and flock(2).
// Each owner gets a descriptor of the backing file of its own and its locks are taken on that as OFD locks: owners
// conflict with each other as they should, and closing the descriptor drops what it holds. The kernel sends no unlock
// when the last descriptor of an open file goes, only RELEASE; and FLUSH with the process as owner at every close(2).

// GetLk tells who stands in the way of a lock.
func (fs *FS) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	return fuse.Status(fs.retryLock(h.node, func(bool) (syscall.Errno, bool, time.Duration) {
		no := fs.getLock(h, in, out)
		return no, no == 0 && out.Lk.Typ != unix.F_UNLCK, h.node.activity().open.leaving(in.Owner)
	}))
}

// getLock looks for a conflict; the node is locked.
func (fs *FS) getLock(h *handle, in *fuse.LkIn, out *fuse.LkOut) syscall.Errno {
	n := h.node
	a := n.activity()
	if a.open == nil {
		return syscall.EBADF
	}
	own := a.open.locks[in.Owner]
	fd := -1
	if own != nil {
		fd = own.fd
	} else {
		var err error
		if fd, err = fs.openLock(h); err != nil {
			return errno(err)
		}
		defer unix.Close(fd)
	}
	lk := flockOf(&in.Lk)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lk); err != nil {
		return errno(err)
	}
	out.Lk = lockOf(&lk)
	if lk.Type != unix.F_UNLCK {
		out.Lk.Pid = a.open.holderOf(lk, own)
	}
	return 0
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
	a := n.activity()
	return fs.retryLock(n, func(patient bool) (syscall.Errno, bool, time.Duration) {
		if a.open == nil {
			return syscall.EBADF, false, 0
		}
		if own := a.open.locks[in.Owner]; own != nil && patient && in.Lk.Typ != unix.F_UNLCK {
			// The kernel numbers an open file by its address, which a new one may have got before we hear that the last one
			// is gone. It must not inherit locks.
			if _, through := own.handles[h.fh]; !through {
				if left := a.open.leavingOwner(own); left > 0 {
					return 0, true, left
				}
			}
		}
		no := fs.tryLock(h, in)
		return no, no == syscall.EAGAIN, a.open.leaving(in.Owner)
	})
}

// tryLock takes or drops a lock; the node is locked.
func (fs *FS) tryLock(h *handle, in *fuse.LkIn) syscall.Errno {
	n := h.node
	own := n.activity().open.locks[in.Owner]
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
