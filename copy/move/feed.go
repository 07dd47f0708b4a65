// SPDX-License-Identifier: Apache-2.0

package move

import (
	"sync"

	"imgward/copy/extent"
)

// Chunk is the size of one request, and of a leaf of the hash trees: large enough that the cost of a system call and of
// a disk's seek disappear, small enough that several in flight fit the memory and a signal is heard soon.
const Chunk = 1 << 20

// ZeroStep bounds one piece of nothing but hole, so that zeroing terabytes on a device does not make us deaf.
const ZeroStep = 1 << 30

// Span is the range [off, off+n) of an image.
type Span struct{ Off, N int64 }

// End is the offset behind the last byte.
func (s Span) End() int64 { return s.Off + s.N }

// Piece is one request's worth of the image: one chunk-aligned chunk that holds data, or any number of whole chunks of
// hole. Pieces are numbered in the order of the image. Since they are aligned, a piece of a sparse image can be hashed
// without looking at its neighbours, and the hash does not depend on where the file system keeps its holes.
type Piece struct {
	Seq int64
	Span
	Data     []Span // in order, within the piece; none: all hole
	reserved bool   // a part of it at least has its blocks in the target already
}

// feeder cuts an image into pieces, for many goroutines to take.
type feeder struct {
	mu    sync.Mutex
	s     *extent.Scanner
	ahead extent.Extent // of the scanner; what of it has not been cut yet
	end   int64
	seq   int64
	hole  int64 // the longest piece of hole
	chunk int64 // the longest piece that holds data
	// reserve is asked about each run of data without gaps before any of its pieces is given out: it says whether it has
	// reserved the blocks of its first n bytes, and is asked again about what follows them; nil: nobody does.
	reserve  func(run Span) (n int64, reserved bool)
	decided  int64 // up to where reserve has decided
	reserved bool  // what is ahead is, up to there
}

// next returns the next piece; ok is false at the end of the image.
func (f *feeder) next() (p Piece, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok, err := f.load(); !ok || err != nil {
		return Piece{}, false, err
	}
	p = Piece{Seq: f.seq, Span: Span{Off: f.ahead.Off}}
	f.seq++
	if p.N = f.wholeHole(); p.N > 0 {
		f.take(p.N)
		return p, true, nil
	}
	end := min(p.Off/f.chunk*f.chunk+f.chunk, f.end)
	p.N = end - p.Off
	for f.ahead.Off < end {
		if ok, err := f.load(); !ok || err != nil {
			return Piece{}, false, err
		}
		part := Span{f.ahead.Off, min(f.ahead.End(), end) - f.ahead.Off}
		if !f.ahead.Hole {
			p.Data = append(p.Data, part)
			p.reserved = p.reserved || f.reserved
		}
		f.take(part.N)
	}
	return p, true, nil
}

// load makes sure that something is ahead.
func (f *feeder) load() (ok bool, err error) {
	if f.ahead.Len == 0 {
		if f.ahead, ok, err = f.s.Next(); !ok || err != nil {
			return false, err
		}
		f.reserved, f.decided = false, f.ahead.Off
		if f.ahead.Hole || f.ahead.Gaps || f.reserve == nil {
			f.decided = f.ahead.End()
		}
	}
	if f.ahead.Off >= f.decided {
		var n int64
		n, f.reserved = f.reserve(Span{f.ahead.Off, f.ahead.Len})
		f.decided = f.ahead.Off + n
	}
	return true, nil
}

func (f *feeder) take(n int64) {
	f.ahead.Off += n
	f.ahead.Len -= n
}

// wholeHole is the length of the hole ahead, if it is one, up to the last boundary of a chunk or the end of the image.
func (f *feeder) wholeHole() int64 {
	off, end := f.ahead.Off, f.ahead.End()
	if !f.ahead.Hole || off%f.chunk != 0 {
		return 0
	}
	if end < f.end {
		end = end / f.chunk * f.chunk
	}
	return min(end-off, f.hole)
}
