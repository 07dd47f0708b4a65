package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// chunk is the size of one request: large enough that the cost of a system call and of a disk's seek disappear, small
// enough that several in flight fit the memory and a signal is heard soon.
const chunk = 1 << 20

// zeroStep bounds one request to zero a range, so that a hole of terabytes on a device does not make us deaf.
const zeroStep = 1 << 30

// piece is one request's worth of the image. Pieces are numbered in the order of the image.
type piece struct {
	seq    int64
	off, n int64
	hole   bool
}

// pump moves extents by reading and writing, several requests in flight: each worker reads a piece into its own buffer
// and writes it, so that reads, writes and the search for zeroes overlap without data passing between goroutines.
type pump struct {
	src, dst *handle
	shift    int64 // added to a source offset gives the target's
	blank    bool  // what is not written reads as zeroes in the target
	opts     *Options
	prog     *Progress
	zero     *zeroer
	trail    *trail    // nil: dirty pages are the kernel's business
	order    *sequence // completion in order, for resuming
	watch    []observer
	salvage  *salvage // nil: a read error ends the copy
}

// observer sees every byte of the source once, in whatever order the workers read; it is called by many goroutines.
type observer interface {
	data(p piece, b []byte) error
	hole(p piece) error
}

// run copies [off, end) of the source, as extents come from the file system.
func (p *pump) run(ctx context.Context, off, end int64) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan piece)
	group.Go(func() error {
		defer close(work)
		return p.feed(ctx, extent.NewScanner(p.src.f, off, end), work)
	})
	for range p.opts.Requests {
		group.Go(func() error { return p.work(ctx, work) })
	}
	return group.Wait()
}

// feed cuts extents into pieces at multiples of chunk, so that a piece's place in the image is enough to know its
// neighbours (the hashes of a block do).
func (p *pump) feed(ctx context.Context, s *extent.Scanner, work chan<- piece) error {
	for seq := int64(0); ; {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return err
		}
		step := int64(chunk)
		if e.Hole {
			step = zeroStep
		}
		for off := e.Off; off < e.End(); seq++ {
			n := min(step-off%step, e.End()-off)
			select {
			case work <- piece{seq: seq, off: off, n: n, hole: e.Hole}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			off += n
		}
	}
}

func (p *pump) work(ctx context.Context, work <-chan piece) error {
	buf, err := sys.Buffer(chunk)
	if err != nil {
		return fmt.Errorf("allocate a buffer: %w", err)
	}
	defer sys.FreeBuffer(buf)
	for pc := range work {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := p.move(ctx, pc, buf); err != nil {
			return err
		}
		p.order.done(pc)
	}
	return nil
}

// move takes one piece from the source to the target.
func (p *pump) move(ctx context.Context, pc piece, buf []byte) error {
	if pc.hole {
		return p.moveHole(pc)
	}
	if p.opts.Limit != nil {
		if err := p.opts.Limit.WaitN(ctx, int(pc.n)); err != nil {
			return err
		}
	}
	b := buf[:pc.n]
	if err := p.read(ctx, b, pc.off); err != nil {
		return err
	}
	for _, w := range p.watch {
		if err := w.data(pc, b); err != nil {
			return err
		}
	}
	return p.write(b, pc.off+p.shift)
}

func (p *pump) moveHole(pc piece) error {
	for _, w := range p.watch {
		if err := w.hole(pc); err != nil {
			return err
		}
	}
	p.prog.Holes.Add(pc.n)
	if p.blank {
		return nil
	}
	_, err := p.zero.zero(pc.off+p.shift, pc.n)
	return err
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

// write leaves zeroes out, or has a target that is not blank make them.
func (p *pump) write(b []byte, off int64) error {
	start := off
	for len(b) > 0 {
		n, zero := p.nextRun(b)
		if err := p.writeRun(b[:n], off, zero); err != nil {
			return err
		}
		off += int64(n)
		b = b[n:]
	}
	return p.trail.wrote(start, off-start)
}

func (p *pump) writeRun(run []byte, off int64, zero bool) error {
	n := int64(len(run))
	if zero {
		p.prog.Zeroes.Add(n)
		if p.blank {
			return nil
		}
		_, err := p.zero.zero(off, n)
		return err
	}
	_, err := p.dst.writeAt(run, off)
	p.prog.Written.Add(n)
	return err
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
