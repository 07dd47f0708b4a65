// SPDX-License-Identifier: Apache-2.0

package move

import (
	"os"
	"sync/atomic"

	"imgward/copy/internal/sys"
)

// reserver allocates blocks before they are written directly, a window of a run of data at a time. ext4 lets one writer at a
// time write directly into a hole, and any number into blocks that are there (fs/ext4/file.c, ext4_dio_write_checks);
// everywhere one allocation instead of sixty-four means less metadata and longer extents.
type reserver struct {
	f      *os.File
	window int64        // the next one's length
	skip   atomic.Int64 // windows to go without: the last ones held zeroes, whose blocks had to be given back
	off    bool         // the file system cannot
}

const (
	// minReserve is the shortest window that is worth the call. The first one is as short, for a run that turns out to be
	// zeroes costs a call for each piece to give back; each one after it is twice as long.
	minReserve = 4 << 20
	maxReserve = 64 << 20
	// skipAfterWaste is how many windows, of maxReserve, are written without, once one held zeroes.
	skipAfterWaste = 16
)

func newReserver(f *os.File) *reserver { return &reserver{f: f, window: minReserve} }

// reserve decides about the first n bytes of a run of data, which end with it or with a piece, and reserves their blocks if
// that is expected to pay. Running out of space here is no failure yet: the zeroes among the data need none. It is for one
// goroutine at a time.
func (r *reserver) reserve(run Span) (n int64, reserved bool) {
	upTo := func(window int64) int64 { return min(run.End(), (run.Off+window)/Chunk*Chunk) - run.Off }
	switch {
	case r.off, run.N < minReserve:
		return run.N, false
	case r.skip.Add(-1) >= 0:
		r.window = minReserve
		return upTo(maxReserve), false
	}
	r.skip.Store(0)
	n = upTo(r.window)
	if err := sys.Allocate(r.f, run.Off, n); err != nil {
		r.off = true
		return n, false
	}
	r.window = min(2*r.window, maxReserve)
	return n, true
}

// wasted takes note of zeroes within a reserved window.
func (r *reserver) wasted() { r.skip.Store(skipAfterWaste) }
