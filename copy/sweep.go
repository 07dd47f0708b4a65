package imgcopy

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// sweep reads an image with several requests in flight. Each worker reads a piece into its own buffer and hands it on
// itself, so that reads, writes, hashes and the search for zeroes overlap without data passing between goroutines.
type sweep struct {
	src      *handle
	requests int
	limit    *rate.Limiter // nil: as fast as it goes
	// whole asks for pieces with their holes filled with zeroes; otherwise only piece.data of the buffer is defined.
	whole bool
	// read fills b from off. It is where progress is counted and errors are salvaged.
	read func(ctx context.Context, b []byte, off int64) error
	// reserve is the feeder's.
	reserve func(run span) bool
	// visit gets every piece once, in no order; b is as long as the piece and its own until visit returns. For a hole
	// b is nil.
	visit func(ctx context.Context, p piece, b []byte) error
}

// run goes over [off, end) of the image, extents as the file system tells them.
func (s *sweep) run(ctx context.Context, off, end int64) error {
	feed := &feeder{s: extent.NewScanner(s.src.f, off, end), end: end, reserve: s.reserve}
	buffers, err := sys.NewBuffers(s.requests, chunk)
	if err != nil {
		return fmt.Errorf("allocate buffers: %w", err)
	}
	defer buffers.Free()
	group, ctx := errgroup.WithContext(ctx)
	for i := range s.requests {
		group.Go(func() error { return s.work(ctx, feed, buffers.Get(i)) })
	}
	return group.Wait()
}

func (s *sweep) work(ctx context.Context, feed *feeder, buf []byte) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p, ok, err := feed.next()
		if err != nil || !ok {
			return err
		}
		if err := s.piece(ctx, p, buf); err != nil {
			return err
		}
	}
}

func (s *sweep) piece(ctx context.Context, p piece, buf []byte) error {
	if len(p.data) == 0 {
		return s.visit(ctx, p, nil)
	}
	b := buf[p.off%chunk:][:p.n] // memory aligned as the offset is: direct I/O wants both
	if s.whole {
		clearGaps(b, p)
	}
	for _, d := range p.data {
		if s.limit != nil {
			if err := s.limit.WaitN(ctx, int(d.n)); err != nil {
				return err
			}
		}
		at := d.off - p.off
		if err := s.read(ctx, b[at:at+d.n], d.off); err != nil {
			return err
		}
	}
	return s.visit(ctx, p, b)
}

// clearGaps makes the holes of a piece zeroes in its buffer, which held another piece before. It comes before reading,
// for a direct read may run on over the end of its data into the hole after it.
func clearGaps(b []byte, p piece) {
	at := p.off
	for _, d := range p.data {
		clear(b[at-p.off : d.off-p.off])
		at = d.end()
	}
	clear(b[at-p.off:])
}
