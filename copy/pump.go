package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"

	"imgward/copy/digest"
)

// pump moves data by reading and writing, several requests in flight, zeroes left out.
type pump struct {
	src, dst *handle
	shift    int64 // added to a source offset gives the target's
	blank    bool  // what is not written reads as zeroes in the target
	opts     *Options
	requests int // in flight
	prog     *Progress
	zero     *zeroer
	ahead    *reserver    // nil: blocks are allocated as they are written
	order    *sequence    // completion in order, for resuming
	sums     *digest.Tree // nil: nobody asks for hashes
	tell     *teller
	method   Method
	why      string
	salvage  *salvage     // nil: a read error ends the copy
	done     func() error // called after each piece
}

// run copies [off, end) of the source.
func (p *pump) run(ctx context.Context, off, end int64) error {
	s := sweep{
		src: p.src, requests: p.requests, limit: p.opts.Limit,
		whole: !p.blank || p.sums != nil,
		read:  p.read, visit: p.move,
	}
	if p.ahead != nil {
		s.reserve = p.ahead.run
	}
	return s.run(ctx, off, end)
}

// close gives up the descriptors for direct I/O.
func (p *pump) close() {
	p.src.close()
	p.dst.close()
}

// move brings one piece to the target.
func (p *pump) move(_ context.Context, pc piece, b []byte) error {
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
	p.tell.piece(pc.seq, steps)
	p.order.done(pc)
	return p.done()
}

func (p *pump) moveHole(pc piece) ([]Step, error) {
	if p.sums != nil {
		p.sums.Hole(pc.off, pc.n)
	}
	p.prog.Holes.Add(pc.n)
	if p.blank {
		return []Step{{Off: pc.off, Len: pc.n, Method: MethodHole}}, nil
	}
	method, err := p.zero.zero(pc.off+p.shift, pc.n)
	return []Step{{Off: pc.off, Len: pc.n, Method: method}}, err
}

// moveData hashes and writes. A blank target needs to know nothing of the piece's holes; another one gets the piece
// whole, holes as the zeroes that they read as.
func (p *pump) moveData(pc piece, b []byte) (steps []Step, err error) {
	if p.sums != nil {
		p.sums.Data(pc.off, b)
	}
	parts := pc.data
	if !p.blank {
		parts = []span{pc.span}
	}
	at := pc.off
	for _, d := range parts {
		steps = p.passed(steps, at, d.off)
		more, err := p.write(b[d.off-pc.off:][:d.n], d.off, pc.reserved)
		if err != nil {
			return nil, err
		}
		steps = append(steps, more...)
		at = d.end()
	}
	return p.passed(steps, at, pc.end()), nil
}

// passed accounts for a hole within a piece.
func (p *pump) passed(steps []Step, from, to int64) []Step {
	if from == to {
		return steps
	}
	p.prog.Holes.Add(to - from)
	return append(steps, Step{Off: from, Len: to - from, Method: MethodHole})
}

func (p *pump) read(ctx context.Context, b []byte, off int64) error {
	n, err := p.src.readAt(b, off)
	p.prog.Read.Add(int64(n))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s became shorter while it was copied: it ends at %d", p.src.f.Name(), off+int64(n))
	case p.salvage != nil:
		return p.salvage.read(ctx, b, off, err)
	}
	return fmt.Errorf("%w, at byte %d; --on-error=zero copies what can be read", err, off+int64(n))
}

// write leaves zeroes out, or has a target that is not blank make them, or gives back what was reserved for them. off is
// the source's.
func (p *pump) write(b []byte, off int64, reserved bool) (steps []Step, err error) {
	for len(b) > 0 {
		n, zero := p.nextRun(b)
		method, err := p.writeRun(b[:n], off+p.shift, zero, reserved)
		if err != nil {
			return nil, err
		}
		if p.tell != nil {
			steps = append(steps, p.step(off, int64(n), method))
		}
		off += int64(n)
		b = b[n:]
	}
	return steps, nil
}

func (p *pump) step(off, n int64, m Method) Step {
	s := Step{Off: off, Len: n, Method: m}
	if m == p.method {
		s.Why = p.why
	}
	return s
}

func (p *pump) writeRun(run []byte, off int64, zero, reserved bool) (Method, error) {
	n := int64(len(run))
	if zero {
		p.prog.Zeroes.Add(n)
		if reserved {
			p.ahead.wasted()
		}
		if p.blank && !reserved {
			return MethodHole, nil
		}
		return p.zero.zero(off, n)
	}
	written, err := p.dst.writeAt(run, off)
	p.prog.Written.Add(int64(written))
	return p.method, err
}

// minZero is the shortest run of zeroes that a target which must be told about them is told about: a request of its own
// costs a device more than writing this much.
const minZero = 64 << 10

// nextRun is the next run to be treated alike.
func (p *pump) nextRun(b []byte) (n int, zero bool) {
	if p.opts.KeepZeroes {
		return len(b), false
	}
	if n, zero = nextRun(b); p.blank || zero && n >= minZero {
		return n, zero
	}
	for n < len(b) { // take short runs of zeroes along with the data
		more, zero := nextRun(b[n:])
		if zero && more >= minZero {
			break
		}
		n += more
	}
	return n, false
}
