// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Allocate reserves blocks for [off, off+n) without writing them; they read as zeroes. It extends the file if the
// range ends beyond it. ENOSPC is told here, before a byte is written.
func Allocate(f *os.File, off, n int64) error { return fallocate(f, 0, off, n) }

// Punch makes [off, off+n) a hole. The size stays. On a block device it unmaps, and fails where the device cannot
// promise that unmapped blocks read as zeroes.
func Punch(f *os.File, off, n int64) error {
	return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// ZeroRange makes [off, off+n) read as zeroes and keeps the blocks. On a block device this is BLKZEROOUT: the device
// zeroes by itself (WRITE ZEROES), or the kernel writes from one page of zeroes.
func ZeroRange(f *os.File, off, n int64) error {
	return fallocate(f, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func fallocate(f *os.File, mode uint32, off, n int64) error {
	return onFile("fallocate", f, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}
