// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// checkSpace refuses a copy of size bytes that cannot fit into the file system behind f (a file on it, or a directory),
// counting holes out by asking need only if there is a doubt. have is what the copy has of its own already.
func checkSpace(f *os.File, size int64, need func() (int64, error), have int64) error {
	free, btrfs, known := freeSpace(f)
	if free += have; !known || size <= free {
		return nil
	}
	bytes, err := need()
	if err != nil || bytes <= free {
		return err
	}
	if btrfs { // what was removed is free when the transaction has been committed
		_ = unix.Syncfs(int(f.Fd()))
		if free, _, _ = freeSpace(f); bytes <= free+have {
			return nil
		}
		free += have
	}
	return fmt.Errorf("%w: the copy needs %s, %s are free where %s is", move.ErrNoSpace, move.Bytes(bytes), move.Bytes(free), f.Name())
}

// freeSpace is what this user may still allocate in the file system behind f; known is false where some network file systems say nothing.
func freeSpace(f *os.File) (bytes int64, btrfs, known bool) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Blocks == 0 {
		return 0, false, false
	}
	free := int64(st.Bavail)
	btrfs = st.Type == unix.BTRFS_SUPER_MAGIC
	if os.Geteuid() == 0 && !btrfs {
		free = int64(st.Bfree) // root may use the reserve; btrfs counts as free what its metadata takes
	}
	return free * int64(st.Frsize), btrfs, true
}

const (
	probes    = 256
	probeSize = 4096
	// With that many probes a share is known to a tenth but for one case in a thousand. Running out of space ends a copy
	// as cleanly as being refused does; only later.
	margin = 0.1
)

// EstimateData estimates how much is no zeroes of the data bytes that an image of size bytes holds, on the low side.
func EstimateData(f *os.File, size, data int64) (int64, error) {
	var at []int64 // as if all data lay side by side
	for range probes {
		at = append(at, rand.Int64N(max(1, data)))
	}
	slices.Sort(at)
	b := make([]byte, probeSize)
	before, zeroes := int64(0), 0
	for s := extent.NewScanner(f, 0, size); len(at) > 0; {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return data, err
		}
		if e.Hole {
			continue
		}
		for ; len(at) > 0 && at[0] < before+e.Len; at = at[1:] {
			off := (e.Off + at[0] - before) / probeSize * probeSize
			n, err := f.ReadAt(b, off)
			if n > 0 && move.IsZero(b[:n]) {
				zeroes++
			} else if n == 0 && err != nil {
				return data, nil // the copy will say so
			}
		}
		before += e.Len
	}
	if zeroes == 0 {
		return data, nil
	}
	share := float64(probes-zeroes)/probes - margin
	return int64(max(0, share) * float64(data)), nil
}

// possible asks the file system of path whether it has files of size bytes, and can reserve their blocks.
func possible(path string, size int64, reserve bool) error {
	f, err := scratchFor(path, size)
	if f == nil {
		return err
	}
	defer f.Close()
	if reserve && sys.Unsupported(sys.Allocate(f, 0, 1)) {
		return fmt.Errorf("--preallocate: the file system of %s cannot reserve blocks", path)
	}
	return nil
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
