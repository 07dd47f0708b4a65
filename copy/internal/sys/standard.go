// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// CheckOpen fails if standard input or output, f, was closed when the program started: what is copied there would be lost, and
// what comes from there would be an empty image. Go's runtime opens /dev/null in its place, for reading and writing; a shell
// opens it for one of the two.
func CheckOpen(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return &os.PathError{Op: "read the flags of", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) && flags&unix.O_ACCMODE == unix.O_RDWR {
		return fmt.Errorf("%s is closed, or is /dev/null opened for reading and writing; if nothing is meant, name /dev/null instead of it", f.Name())
	}
	return nil
}
