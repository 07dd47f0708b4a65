// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
	"imgward/guard/qlock"
)

// imageLocks takes QEMU's image locks.
type imageLocks struct{}

// Write implements source.Locks: while an image is overwritten, nobody may even read it.
func (imageLocks) Write(f *os.File) (func(), error) { return takeLocks(f, qlock.Writing) }

// Read implements source.Locks: others may read as well.
func (imageLocks) Read(f *os.File) (func(), error) { return takeLocks(f, qlock.Reading) }

func takeLocks(f *os.File, need qlock.Need) (release func(), err error) {
	lock, err := qlock.Take(f, need)
	switch {
	case err == nil:
		return func() { _ = lock.Release() }, nil
	case errors.Is(err, qlock.ErrHeld):
		return nil, fmt.Errorf("%w: %w", source.ErrInUse, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return func() {}, nil // a file system without locks
	}
	return nil, err
}
