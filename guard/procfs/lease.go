// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Leases asks the kernel who else has a file open, by taking a lease on it and giving it back at once: it grants one
// only where there is no conflicting opener (fcntl(2), F_SETLEASE; check_conflicting_open in fs/locks.c). That is two
// system calls, where a walk through /proc is thousands.
//
// An open that falls into the microsecond between the two waits for the lease, or gets EWOULDBLOCK if it was made with
// O_NONBLOCK; OpenRetry is for those of our own. The zero value is ready for use.
type Leases struct {
	complete sync.Map // st_dev → bool; a file system that is asked about is held open by whoever asks
}

// OpenElsewhere says whether anything but fd has the file open: a process, a mapping, a loop device. fd must be open
// read-only, dev is its st_dev. True is also the answer where leases do not tell: on block devices, on file systems
// that have none or see only a part of the openers (network, FUSE, overlay).
func (l *Leases) OpenElsewhere(fd int, dev uint64) bool { return !l.granted(fd, dev, unix.F_WRLCK) }

// WrittenElsewhere is OpenElsewhere for those that may write: also by a mapping whose descriptor was closed.
func (l *Leases) WrittenElsewhere(fd int, dev uint64) bool { return !l.granted(fd, dev, unix.F_RDLCK) }

func (l *Leases) granted(fd int, dev uint64, kind int) bool {
	if !l.seesAll(fd, dev) {
		return false
	}
	err := probeLease(fd, kind)
	if errors.Is(err, unix.EACCES) { // another's file, and no CAP_LEASE: systemd's rating takes points for that
		err = asOwner(fd, func() error { return probeLease(fd, kind) })
	}
	return err == nil
}

// probeLease takes a lease and gives it back.
func probeLease(fd, kind int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, kind); err != nil {
		return err
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return nil
}

// asOwner runs f with the file's owner as this thread's file system user, who may take leases on it.
func asOwner(fd int, f func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SetfsuidRetUid(int(st.Uid))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Setfsuid(before) }() // always permitted: it is the thread's own
	return f()
}

// seesAll names the file systems whose inodes the kernel's lease code sees every opener of.
func (l *Leases) seesAll(fd int, dev uint64) bool {
	if known, ok := l.complete.Load(dev); ok {
		return known.(bool)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false
	}
	sees := false
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		sees = true
	}
	l.complete.Store(dev, sees)
	return sees
}

// OpenRetry repeats an O_NONBLOCK open that met a lease probe of another check.
func OpenRetry[F any](open func() (F, error)) (F, error) {
	const tries = 100 // a probe lasts a microsecond; a lease of somebody else's lasts, and is that one's own affair
	for n := 0; ; n++ {
		f, err := open()
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || n == tries {
			return f, err
		}
	}
}
