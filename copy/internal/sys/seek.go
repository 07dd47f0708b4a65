// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// NextData returns the first offset at or after off that holds data; ok is false when only a hole follows.
func NextData(f *os.File, off int64) (at int64, ok bool, err error) {
	at, err = seek(f, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, false, nil
	}
	return at, err == nil, err
}

// NextHole returns the first hole at or after off, which is at the latest the end of the file.
func NextHole(f *os.File, off int64) (int64, error) { return seek(f, off, unix.SEEK_HOLE) }

// seek moves the file position, which nothing else here uses: all data goes by pread and pwrite.
func seek(f *os.File, off int64, whence int) (at int64, err error) {
	err = onFile("seek", f, func(fd int) (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, err
}
