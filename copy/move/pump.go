// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"imgward/copy/digest"
	"imgward/copy/internal/sys"
)

// Pump moves data by reading and writing, several requests in flight, zeroes left out.
type Pump struct {
	Src, Dst   *Handle
	Shift      int64         // added to a source offset gives the target's
	Blank      bool          // what is not written reads as zeroes in the target
	keepZeroes bool          // copy zeroes as data
	limit      *rate.Limiter // nil: as fast as it goes
	requests   int           // in flight
	cached     bool          // from page cache to page cache
	prog       *Progress
	zero       *Zeroer
	ahead      *reserver    // nil: blocks are allocated as they are written
	Order      *Sequence    // what is done, in order
	Sums       *digest.Tree // nil: nobody asks for hashes
	Method     Method
	Why        string
	Salvage    *Salvage     // nil: a read error ends the copy
	Done       func() error // called after each piece
}

// PumpOptions say how a pump reads and writes.
type PumpOptions struct {
	DirectReads  bool // past the page cache, where that is possible
	DirectWrites bool
	Durable      bool // what is written will be flushed: no more dirty pages than the device takes
	Reserve      bool // blocks may be allocated before they are written
	Blank        bool // what is not written reads as zeroes in the target
	KeepZeroes   bool // copy zeroes as data
	KeepBlocks   bool // zeroes take up blocks: nothing is unmapped
	Limit        *rate.Limiter
	Requests     int
	Size         int64 // of the source, for a guess at how much of it is in the page cache
	Progress     *Progress
}

// NewPump is for a copy in any order that nobody follows; whoever does sets more fields before run.
func NewPump(src, dst *os.File, o PumpOptions) *Pump {
	p := &Pump{
		Src: NewHandle(src, unix.O_RDONLY, o.DirectReads), Dst: NewHandle(dst, unix.O_RDWR, o.DirectWrites),
		Blank: o.Blank, keepZeroes: o.KeepZeroes, limit: o.Limit, requests: o.Requests, prog: o.Progress,
		Order: NewSequence(0, nil), Method: MethodBuffer, Done: func() error { return nil },
	}
	p.zero = &Zeroer{H: p.Dst, Keep: o.KeepBlocks}
	switch {
	case p.Dst.direct != nil:
		p.Method = MethodDirect
		if o.Reserve {
			p.ahead = newReserver(dst)
		}
	case mostlyCached(p.Src, o.Size):
		p.requests, p.cached = min(p.requests, cacheToCache), true
	}
	if o.Durable {
		p.Dst.writeback = &writeback{f: dst}
	}
	return p
}

// cacheToCache is how many requests are in flight from page cache to page cache, where nothing waits for a device. A second
// one waits for the target's lock with a buffer that leaves the CPU's cache meanwhile (least of five, 768 MiB on a loaded
// host: 0.24 s with one and 0.25 with two on XFS, 0.37 and 0.72 on ext4).
const cacheToCache = 1

// cachePiece is the size of such a request: it stays in the CPU's cache between its read and its write. With 1 MiB a copy took
// 0.8 s of CPU time for 512 MiB on a loaded host, as dd bs=1M did, and cp with its smaller buffer 0.15 s.
const cachePiece = 128 << 10

// mostlyCached is a guess from what is in the page cache now.
func mostlyCached(src *Handle, size int64) bool {
	data := size
	if IsRegular(src.File) {
		data = min(size, Allocated(src.File))
	}
	cached, ok := sys.Cached(src.File, 0, size)
	return ok && cached > data/2
}

// Run copies [off, end) of the source.
func (p *Pump) Run(ctx context.Context, off, end int64) error {
	s := Sweep{
		Src: p.Src, Requests: p.requests, Limit: p.limit,
		Read: p.Read, Visit: p.Move, HolesStay: p.Blank && p.Sums == nil,
	}
	if p.cached && p.Sums == nil { // hashes want whole leaves
		s.chunk = cachePiece
	}
	if p.ahead != nil {
		s.reserve = p.ahead.reserve
	}
	return s.Run(ctx, off, end)
}

// Close gives up the descriptors for direct I/O.
func (p *Pump) Close() {
	p.Src.Close()
	p.Dst.Close()
}

// Move brings one piece to the target.
func (p *Pump) Move(_ context.Context, pc Piece, b []byte) error {
	var steps []Step
	var err error
	if b == nil {
		steps, err = p.moveHole(pc)
	} else {
		steps, err = p.moveData(pc, b)
	}
	if err != nil {
		return err
	}
	p.Order.done(pc, steps)
	return p.Done()
}

func (p *Pump) moveHole(pc Piece) ([]Step, error) {
	if p.Sums != nil {
		p.Sums.Hole(pc.Off, pc.N)
	}
	p.prog.Holes.Add(pc.N)
	if p.Blank {
		return []Step{{Off: pc.Off, Len: pc.N, Method: MethodHole}}, nil
	}
	method, err := p.zero.Zero(pc.Off+p.Shift, pc.N)
	return []Step{{Off: pc.Off, Len: pc.N, Method: method}}, err
}

// moveData hashes and writes.
func (p *Pump) moveData(pc Piece, b []byte) (steps []Step, err error) {
	if p.Sums != nil {
		p.Sums.Data(pc.Off, b)
	}
	for _, r := range p.split(pc, b) {
		method, err := p.writeRun(r, b[r.Off-pc.Off:][:r.N], pc.reserved)
		if err != nil {
			return nil, err
		}
		if p.Order.report != nil {
			steps = append(steps, p.step(r.Off, r.N, method))
		}
	}
	return steps, nil
}

func (p *Pump) Read(ctx context.Context, b []byte, off int64) error {
	n, err := p.Src.ReadAt(b, off)
	p.prog.Read.Add(int64(n))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s became shorter while it was copied: it ends at %d", p.Src.File.Name(), off+int64(n))
	case p.Salvage != nil:
		return p.Salvage.Read(ctx, b, off, err)
	}
	return fmt.Errorf("%w, at byte %d; --on-error=zero copies what can be read", err, off+int64(n))
}

func (p *Pump) step(off, n int64, m Method) Step {
	s := Step{Off: off, Len: n, Method: m}
	if m == p.Method {
		s.Why = p.Why
	}
	return s
}

// writeRun leaves zeroes out, or has a target that is not blank make them, or gives back what was reserved for them.
func (p *Pump) writeRun(r run, b []byte, reserved bool) (Method, error) {
	switch r.content {
	case hole:
		p.prog.Holes.Add(r.N)
		return MethodHole, nil
	case zero:
		p.prog.Zeroes.Add(r.N)
		if reserved {
			p.ahead.wasted()
		}
		if p.Blank && !reserved {
			return MethodHole, nil
		}
		return p.zero.Zero(r.Off+p.Shift, r.N)
	}
	written, err := p.Dst.writeAt(b, r.Off+p.Shift)
	p.prog.Written.Add(int64(written))
	return p.Method, err
}
