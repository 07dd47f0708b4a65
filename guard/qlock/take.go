// SPDX-License-Identifier: Apache-2.0

package qlock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What the two ways to copy an image need. Writing is what QEMU itself locks for a disk that nobody else may touch;
// Reading leaves an image to other readers and keeps writers out.
var (
	Writing = Need{Use: ConsistentRead | Write | Resize}
	Reading = Need{Use: ConsistentRead, Share: ConsistentRead | WriteUnchanged}
)

// Need is what a process does to an image, and what it lets others do meanwhile.
type Need struct{ Use, Share Perm }

// ErrHeld is what a *Conflict is.
var ErrHeld = errors.New("another process has it locked")

// Conflict says what stands in the way of a lock.
type Conflict struct {
	File string
	Need Need
	Held Held
}

// Error names the permissions as QEMU does.
func (c *Conflict) Error() string {
	if p := c.Held.Used &^ c.Need.Share; p != 0 {
		return fmt.Sprintf("%s is in use by another process (QEMU's image locks: %s)", c.File, p)
	}
	return fmt.Sprintf("%s is kept by another process from being used (QEMU's image locks: %s)",
		c.File, c.Held.Unshared&c.Need.Use)
}

// Is makes a Conflict an ErrHeld.
func (c *Conflict) Is(err error) bool { return err == ErrHeld }

// Lock is what Take took. It goes with the file's open file description at the latest.
type Lock struct{ f *os.File }

// Take locks an image as QEMU would, so that no QEMU process opens it in a way that conflicts (raw_handle_perm_lock in
// block/file-posix.c): first the bytes are locked, then it looks whether others hold the counterparts, so that of two
// who come at once at least one sees the other. f must be open for reading and may be open for writing as well.
//
// The error is a *Conflict where another process is in the way. ENOLCK, EINVAL or EOPNOTSUPP: the file system has no
// such locks.
func Take(f *os.File, need Need) (*Lock, error) {
	conflict := &Conflict{File: f.Name(), Need: need}
	err := control(f, func(fd int) error {
		if err := apply(fd, need); err != nil {
			return err
		}
		held, err := probe(fd)
		if err != nil {
			return err
		}
		if conflict.Held = held; held.conflicts(need) {
			return conflict
		}
		return nil
	})
	if err == nil {
		return &Lock{f}, nil
	}
	_ = (&Lock{f}).Release()
	if errors.Is(err, ErrHeld) {
		return nil, err
	}
	return nil, fmt.Errorf("take QEMU's image locks on %s: %w", f.Name(), err)
}

// Release gives the locks back.
func (l *Lock) Release() error {
	return control(l.f, func(fd int) error {
		all := unix.Flock_t{Type: unix.F_UNLCK, Whence: unix.SEEK_SET, Start: permBase, Len: unsharedBase + bits - permBase}
		return fcntl(fd, unix.F_OFD_SETLK, &all)
	})
}

// conflicts says whether others use what is not shared, or do not share what is needed.
func (h Held) conflicts(n Need) bool { return h.Used&^n.Share&All != 0 || h.Unshared&n.Use != 0 }

// apply takes shared locks: who conflicts with whom is found by looking, not by the locks themselves.
func apply(fd int, need Need) error {
	for n := range bits {
		p := Perm(1 << n)
		if need.Use&p != 0 {
			if err := lockByte(fd, permBase+int64(n)); err != nil {
				return err
			}
		}
		if (All&^need.Share)&p != 0 {
			if err := lockByte(fd, unsharedBase+int64(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func lockByte(fd int, at int64) error {
	return fcntl(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET, Start: at, Len: 1})
}
