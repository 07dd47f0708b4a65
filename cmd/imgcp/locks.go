package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/guard/qlock"
)

// imageLocks takes QEMU's image locks.
type imageLocks struct{}

// Write implements imgcopy.Locks: while an image is overwritten, nobody may even read it.
func (imageLocks) Write(f *os.File) (func(), error) {
	return takeLocks(f, qlock.ConsistentRead|qlock.Write|qlock.Resize, qlock.All)
}

// Read implements imgcopy.Locks: others may read as well.
func (imageLocks) Read(f *os.File) (func(), error) {
	return takeLocks(f, qlock.ConsistentRead, qlock.Write|qlock.Resize)
}

// Where the bytes of used and unshared permissions begin (QEMU's block/file-posix.c).
const (
	usedBase     = 100
	unsharedBase = 200
)

// takeLocks locks first and looks then, as QEMU does: of two that come at the same time at least one sees the other.
func takeLocks(f *os.File, use, unshare qlock.Perm) (release func(), err error) {
	err = setLocks(f, unix.F_RDLCK, use, unshare)
	if cannotLock(err) {
		return func() {}, nil
	}
	release = func() { _ = setLocks(f, unix.F_UNLCK, use, unshare) }
	if err != nil {
		release()
		return nil, fmt.Errorf("%s is %w: %w", f.Name(), imgcopy.ErrInUse, err)
	}
	held, err := qlock.Probe(f)
	if err != nil {
		release()
		return nil, err
	}
	if conflict := held.Used&unshare | held.Unshared&use; conflict != 0 {
		release()
		return nil, fmt.Errorf("%s is %w: another process holds QEMU's image lock for %q", f.Name(), imgcopy.ErrInUse, conflict)
	}
	return release, nil
}

func setLocks(f *os.File, kind int16, use, unshare qlock.Perm) error {
	for n := range 8 {
		bit := qlock.Perm(1) << n
		if use&bit != 0 {
			if err := setLock(f, kind, usedBase+int64(n)); err != nil {
				return err
			}
		}
		if unshare&bit != 0 {
			if err := setLock(f, kind, unsharedBase+int64(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func setLock(f *os.File, kind int16, at int64) error {
	for {
		l := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: at, Len: 1}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		if err != unix.EINTR {
			return err
		}
	}
}

// cannotLock tells a file system without locks from one that refuses.
func cannotLock(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}
