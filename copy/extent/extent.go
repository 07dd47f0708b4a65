// SPDX-License-Identifier: Apache-2.0

// Package extent finds where an image holds data and where it has holes.
package extent

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// Extent is a run of one kind: bytes [Off, Off+Len) of an image.
type Extent struct {
	Off, Len int64
	Hole     bool
	Gaps     bool // data with many small holes in it
}

// End is the offset just after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

const (
	// maxGap is the largest hole that is read over instead of being an extent of its own: reading it costs no disk
	// access and less time than two seeks, and zero detection finds it again for the destination.
	maxGap = 64 << 10
	// A window in which crowd small holes were found is taken as data to its end: a comb of 4 KiB holes costs two
	// system calls each (through FUSE, two round trips to the daemon), and reading finds the zeroes anyway.
	window = 1 << 20
	crowd  = 8
	// maxRun bounds one data extent, so that copying starts while a huge fragmented image is still being explored.
	maxRun = 64 << 20
)

// Scanner walks over an image and asks the file system range by range, never for the whole map: SEEK_HOLE over a large
// fragmented file may take minutes on some file systems, and the map need not fit in memory.
type Scanner struct {
	f        *os.File
	pos, end int64
	data     int64 // the next data, if known already; else -1
	gaps     bool  // the extent under way has many small holes
}

// NewScanner walks over [off, end) of f. A file or device that knows no holes is one run of data.
func NewScanner(f *os.File, off, end int64) *Scanner {
	return &Scanner{f: f, pos: off, end: end, data: -1}
}

// Next returns the next extent; ok is false at the end. Neighbouring data extents may both be data (see maxRun); holes
// are reported as the file system gives them, but for those swallowed by maxGap.
func (s *Scanner) Next() (e Extent, ok bool, err error) {
	if s.pos >= s.end {
		return Extent{}, false, nil
	}
	start := s.pos
	data, err := s.nextData(start)
	if err != nil {
		return Extent{}, false, err
	}
	if data > start {
		s.pos, s.data = data, data
		return Extent{Off: start, Len: data - start, Hole: true}, true, nil
	}
	if s.pos, err = s.dataEnd(start); err != nil {
		return Extent{}, false, err
	}
	return Extent{Off: start, Len: s.pos - start, Gaps: s.gaps}, true, nil
}

// nextData is the first data at or after off, or the end.
func (s *Scanner) nextData(off int64) (int64, error) {
	if s.data >= off {
		return s.data, nil
	}
	at, ok, err := sys.NextData(s.f, off)
	switch {
	case noHoles(err), ok && at < off: // a driver that takes any seek and means nothing by it
		return off, nil
	case err != nil:
		return 0, err
	case !ok:
		return s.end, nil
	}
	return min(at, s.end), nil
}

// dataEnd follows the data that begins at start over small gaps.
func (s *Scanner) dataEnd(start int64) (int64, error) {
	s.data, s.gaps = -1, false
	small := 0
	for at := start; ; {
		hole, err := sys.NextHole(s.f, at)
		if noHoles(err) || hole >= s.end || err == nil && hole < at || errors.Is(err, unix.ENXIO) {
			return s.end, nil // ENXIO: the file was cut off meanwhile, which whoever reads the data notices
		}
		if err != nil {
			return 0, err
		}
		if hole <= start { // the file lost this data between two seeks: never return an empty extent
			hole = min(start+4096, s.end)
		}
		next, err := s.nextData(hole)
		if err != nil {
			return 0, err
		}
		if next-hole > maxGap || next >= s.end {
			s.data = next
			return hole, nil
		}
		if small++; small == crowd {
			small, s.gaps = 0, true
			next = min((next/window+1)*window, s.end)
		}
		if next == s.end { // asking for a hole there is ENXIO
			return next, nil
		}
		if next-start >= maxRun {
			return next, nil
		}
		at = next
	}
}

// noHoles recognises a file that cannot answer SEEK_DATA: block devices say EINVAL.
func noHoles(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// Survey is what an image holds, for estimates.
type Survey struct {
	Data, Holes int64 // bytes
	Extents     int
	Complete    bool // false: the survey was cut off at limit extents, and Data and Holes cover only what was seen
}

// Take explores f up to size, at most limit extents.
func Take(f *os.File, size int64, limit int) (Survey, error) {
	var v Survey
	for s := NewScanner(f, 0, size); v.Extents < limit; v.Extents++ {
		e, ok, err := s.Next()
		if err != nil {
			return v, err
		}
		if !ok {
			v.Complete = true
			return v, nil
		}
		if e.Hole {
			v.Holes += e.Len
		} else {
			v.Data += e.Len
		}
	}
	return v, nil
}
