// SPDX-License-Identifier: Apache-2.0

package move

import (
	"os"
	"sync/atomic"

	"imgward/copy/internal/sys"
)

// reserver allocates a run of data's blocks before they are written directly. ext4 lets one writer at a time write
// directly into a hole, and any number into blocks that are there (fs/ext4/file.c, ext4_dio_write_checks); everywhere
// one allocation instead of sixty-four means less metadata and longer extents.
type reserver struct {
	f    *os.File
	rest atomic.Int64 // runs to go without: the last ones held zeroes, whose blocks had to be given back
	off  atomic.Bool  // the file system cannot
}

const (
	// minReserve is the shortest run that is worth the call.
	minReserve = 4 << 20
	// restAfterWaste is how many runs, of 64 MiB at most, are written without, once one held zeroes.
	restAfterWaste = 16
)

// run reserves the blocks of a run of data, if that is expected to pay. Running out of space here is no failure yet: the
// zeroes among the data need none.
func (r *reserver) run(s Span) bool {
	if s.N < minReserve || r.off.Load() || r.rest.Add(-1) >= 0 {
		return false
	}
	r.rest.Store(0)
	if err := sys.Allocate(r.f, s.Off, s.N); err != nil {
		r.off.Store(true)
		return false
	}
	return true
}

// wasted takes note of zeroes within a reserved run.
func (r *reserver) wasted() { r.rest.Store(restAfterWaste) }
