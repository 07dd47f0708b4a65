// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Clone makes dst share all of src's extents (FICLONE, ioctl_ficlone(2)): one call for a whole image. Both must be
// regular files of one file system with reflinks; otherwise Unsupported(err).
func Clone(dst, src *os.File) error {
	return onFile("clone into", dst, func(fd int) error {
		return unix.IoctlFileClone(fd, int(src.Fd()))
	})
}

// CloneRange shares n bytes at off, the same place in both files. off and n are multiples of the file system's block
// size, but that a range may end with src.
func CloneRange(dst, src *os.File, off, n int64) error { return ShareRange(dst, off, src, off, n) }

// ShareRange is CloneRange from another place than it goes to.
func ShareRange(dst *os.File, to int64, src *os.File, from, n int64) error {
	r := unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(to),
	}
	return onFile("clone range into", dst, func(fd int) error { return unix.IoctlFileCloneRange(fd, &r) })
}

// CopyRange has the kernel, or the server behind it, copy up to n bytes from src to dst at the same offset
// (copy_file_range(2)). It returns what was copied, which may be less than n; 0 without an error means that src ends
// at off or that the file system cannot say (procfs and FUSE before Linux 5.19 do).
func CopyRange(dst, src *os.File, off, n int64) (int64, error) {
	var done int
	err := onFile("copy range into", dst, func(fd int) (err error) {
		from, to := off, off
		done, err = unix.CopyFileRange(int(src.Fd()), &from, fd, &to, int(min(n, maxRange)), 0)
		return err
	})
	return int64(done), err
}

// maxRange keeps one request below the kernel's MAX_RW_COUNT (2 GiB less a page) and a multiple of every block size,
// for an unaligned length would make a reflink of its tail impossible.
const maxRange = 2<<30 - 1<<20
