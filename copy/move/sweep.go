// SPDX-License-Identifier: Apache-2.0

// Package move carries the data of an image from one file to another: it cuts an image into pieces, reads and writes them
// with several requests in flight, leaves zeroes out, and knows the kernel's own ways to copy.
package move

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// Sweep reads an image with several requests in flight. Each worker reads a piece into its own buffer and hands it on
// itself, so that reads, writes, hashes and the search for zeroes overlap without data passing between goroutines.
type Sweep struct {
	Src      *Handle
	Requests int
	Limit    *rate.Limiter // nil: as fast as it goes
	// HolesStay: nothing is done to a hole, so that it may be of any length.
	HolesStay bool
	// Read fills b from off. It is where progress is counted and errors are salvaged.
	Read  func(ctx context.Context, b []byte, off int64) error
	chunk int64 // of a piece that holds data; 0: Chunk
	// reserve is the feeder's.
	reserve func(run Span) (n int64, reserved bool)
	// Visit gets every piece once, in no order; b is as long as the piece, holes as zeroes, and its own until Visit returns.
	// For a hole b is nil.
	Visit func(ctx context.Context, p Piece, b []byte) error
}

// Run goes over [off, end) of the image, extents as the file system lists them.
func (s *Sweep) Run(ctx context.Context, off, end int64) error {
	hole := int64(ZeroStep)
	if s.HolesStay {
		hole = math.MaxInt64
	}
	if s.chunk == 0 {
		s.chunk = Chunk
	}
	feed := &feeder{hole: hole, chunk: s.chunk, s: extent.NewScanner(s.Src.File, off, end), end: end, reserve: s.reserve}
	requests := min(s.Requests, max(1, int((end-off+s.chunk-1)/s.chunk))) // a small image starts no threads for nothing
	buffers, err := sys.NewBuffers(requests, int(s.chunk))
	if err != nil {
		return fmt.Errorf("allocate buffers: %w", err)
	}
	defer buffers.Free()
	group, ctx := errgroup.WithContext(ctx)
	for i := range requests {
		group.Go(func() error { return s.work(ctx, feed, buffers.Get(i)) })
	}
	return group.Wait()
}

func (s *Sweep) work(ctx context.Context, feed *feeder, buf []byte) error {
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

func (s *Sweep) piece(ctx context.Context, p Piece, buf []byte) error {
	if len(p.Data) == 0 {
		return s.Visit(ctx, p, nil)
	}
	b := buf[p.Off%s.chunk:][:p.N] // memory aligned as the offset is: direct I/O wants both
	clearGaps(b, p)
	for _, d := range p.Data {
		if err := Throttle(ctx, s.Limit, int(d.N)); err != nil {
			return err
		}
		at := d.Off - p.Off
		if err := s.Read(ctx, b[at:at+d.N], d.Off); err != nil {
			return err
		}
	}
	return s.Visit(ctx, p, b)
}

// clearGaps makes the holes of a piece zeroes in its buffer, which held another piece before. It comes before reading,
// for a direct read may run on over the end of its data into the hole after it.
func clearGaps(b []byte, p Piece) {
	at := p.Off
	for _, d := range p.Data {
		clear(b[at-p.Off : d.Off-p.Off])
		at = d.End()
	}
	clear(b[at-p.Off:])
}

// Throttle waits until n bytes may be moved; nil is no limit. n may be more than the limit allows at once.
func Throttle(ctx context.Context, limit *rate.Limiter, n int) error {
	for limit != nil && n > 0 {
		part := min(n, limit.Burst())
		if err := limit.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
