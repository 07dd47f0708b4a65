// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"imgward/copy/digest"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// runStream copies when one side is a pipe: in order, one request at a time.
func (c *copier) runStream(ctx context.Context) error {
	switch {
	case c.pipe == nil:
		return c.streamIn(ctx)
	case c.src.Kind == source.Stream:
		return c.passOn(ctx)
	}
	return c.streamOut(ctx)
}

// streamIn writes a pipe into a file or device. The size shows at the end only, so the file grows as it comes.
func (c *copier) streamIn(ctx context.Context) error {
	buffers, err := sys.NewBuffers(1, move.Chunk)
	if err != nil {
		return fmt.Errorf("allocate a buffer: %w", err)
	}
	defer buffers.Free()
	if err := c.dst.Prepare(0, 0); err != nil {
		return err
	}
	c.wantSums(digest.Unknown)
	c.hashed = 0
	p := c.newPump()
	defer p.Close()
	return c.drain(ctx, buffers.Get(0), p.Move)
}

// drain moves leaf by leaf until the pipe ends.
func (c *copier) drain(ctx context.Context, buf []byte, visit func(context.Context, move.Piece, []byte) error) error {
	size, err := c.drained(ctx, buf, visit)
	if err != nil {
		return err
	}
	return c.endStream(ctx, size)
}

// drained returns how much came.
func (c *copier) drained(ctx context.Context, buf []byte, visit func(context.Context, move.Piece, []byte) error) (size int64, err error) {
	in := source.NewReader(ctx, c.src.File)
	for seq := int64(0); ; seq++ {
		n, err := io.ReadFull(in, buf)
		c.prog.Read.Add(int64(n))
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return size, fmt.Errorf("read %s: %w", c.src.Name, err)
		}
		if n > 0 {
			at := move.Span{Off: size, N: int64(n)}
			err := move.Throttle(ctx, c.opts.Limit, n)
			if err == nil {
				err = visit(ctx, move.Piece{Seq: seq, Span: at, Data: []move.Span{at}}, buf[:n])
			}
			if err != nil {
				return size, err
			}
			size += int64(n)
		}
		if err != nil {
			return size, nil
		}
	}
}

// endStream gives the file its size, for it may end with zeroes that were left out.
func (c *copier) endStream(ctx context.Context, size int64) error {
	c.src.Size = size
	c.prog.Size.Store(size)
	if c.sums != nil {
		c.sums.End(size)
	}
	if c.pipe == nil && c.dst.Blank() {
		if err := c.dst.File().Truncate(size); err != nil {
			return move.OutOfSpace(err)
		}
	}
	c.order.Flush()
	return c.finish(ctx)
}

// streamOut writes an image into a pipe, holes as zeroes. One request in flight keeps the order.
func (c *copier) streamOut(ctx context.Context) error {
	c.use(move.MethodStream)
	c.wantSums(c.src.Size)
	c.hashed = 0
	src := move.NewHandle(c.src.File, unix.O_RDONLY, c.opts.Direct != Never)
	defer src.Close()
	s := move.Sweep{
		Src: src, Requests: 1, Limit: c.opts.Limit, Read: countedReader(src, &c.prog.Read),
		Visit: func(ctx context.Context, p move.Piece, b []byte) error { return c.send(ctx, p, b) },
	}
	if err := s.Run(ctx, 0, c.src.Size); err != nil {
		return err
	}
	c.order.Flush()
	return c.finish(ctx)
}

// send writes one piece.
func (c *copier) send(ctx context.Context, p move.Piece, b []byte) error {
	c.order.Add(move.Step{Off: p.Off, Len: p.N, Method: move.MethodStream})
	if b != nil {
		if c.sums != nil {
			c.sums.Data(p.Off, b)
		}
		n, err := c.pipe.Writer(ctx).Write(b)
		c.prog.Written.Add(int64(n))
		return c.wrapWrite(err)
	}
	if c.sums != nil {
		c.sums.Hole(p.Off, p.N)
	}
	for left := p.N; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := c.pipe.Writer(ctx).Write(move.Zeroes[:min(move.Chunk, left)])
		c.prog.Holes.Add(int64(n))
		if err != nil {
			return c.wrapWrite(err)
		}
		left -= int64(n)
	}
	return nil
}

func (c *copier) wrapWrite(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write to %s: %w", c.pipe.Name(), move.OutOfSpace(err))
}

// passOn copies from pipe to pipe.
func (c *copier) passOn(ctx context.Context) error {
	c.use(move.MethodStream)
	c.wantSums(digest.Unknown)
	c.hashed = 0
	return c.drain(ctx, make([]byte, move.Chunk), func(ctx context.Context, p move.Piece, b []byte) error {
		return c.send(ctx, p, b)
	})
}
