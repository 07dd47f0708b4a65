// SPDX-License-Identifier: Apache-2.0

// Package sys wraps the Linux calls of a copy that golang.org/x/sys leaves raw.
//
// Every wrapper retries EINTR, returns an *os.PathError that names the file, and adds by itself the flags without which
// the call would be dangerous (O_CLOEXEC, O_NOFOLLOW, RENAME_NOREPLACE), so that a caller cannot forget them.
package sys

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// retry runs a call until it is not interrupted by a signal. Go's runtime preempts threads with SIGURG, so even a
// program that handles no signals meets EINTR on slow file systems (FUSE above all).
func retry(call func() error) error {
	for {
		err := call()
		if err != unix.EINTR {
			return err
		}
	}
}

// onFile runs a call on f's descriptor and names f in the error. f stays open for as long as the call runs.
func onFile(op string, f *os.File, call func(fd int) error) error {
	err := retry(func() error { return call(int(f.Fd())) })
	runtime.KeepAlive(f)
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

// Unsupported reports whether err says that this file, file system or pair of them cannot do what was asked, so that
// the next strategy is to be tried. EINVAL is among them: FICLONE and copy_file_range answer it for files of
// the wrong type, unaligned ranges and, on btrfs, for a mix of nodatacow and checksummed files.
func Unsupported(err error) bool {
	for _, e := range []error{
		unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL, unix.EBADF, unix.ETXTBSY, unix.EPERM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
