// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// checkSpace refuses a copy of size bytes that cannot fit into the file system behind f (a file on it, or a directory),
// counting holes out by asking need only if there is a doubt. have is what the copy has of its own already.
func checkSpace(f *os.File, size int64, need func() (int64, error), have int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Blocks == 0 { // some network file systems say nothing
		return nil
	}
	free := int64(st.Bavail)
	if os.Geteuid() == 0 && st.Type != unix.BTRFS_SUPER_MAGIC {
		free = int64(st.Bfree) // root may use the reserve; btrfs counts as free what its metadata takes
	}
	if free = free*int64(st.Frsize) + have; size <= free {
		return nil
	}
	bytes, err := need()
	if err != nil || bytes <= free {
		return err
	}
	return fmt.Errorf("%w: the copy needs %s, %s are free where %s is", move.ErrNoSpace, move.Bytes(bytes), move.Bytes(free), f.Name())
}

// makeRoom sets the size of an image; everything in it that is new reads as zeroes. With reserve its blocks are there
// already, so that the file system cannot run out of them later.
func makeRoom(f *os.File, size int64, reserve bool) error {
	if reserve && size > 0 {
		if err := sys.Allocate(f, 0, size); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}
