package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/digest"
	"imgward/copy/internal/sys"
)

// runStream copies when one side is a pipe: in order, one request at a time.
func (c *copier) runStream(ctx context.Context) error {
	if out, ok := c.dst.(*pipe); ok {
		if c.src.kind == stream {
			return c.passOn(ctx, out)
		}
		return c.streamOut(ctx, out)
	}
	return c.streamIn(ctx)
}

// streamIn writes a pipe into a file or device. The size shows at the end only, so the file grows as it comes.
func (c *copier) streamIn(ctx context.Context) error {
	buffers, err := sys.NewBuffers(1, chunk)
	if err != nil {
		return fmt.Errorf("allocate a buffer: %w", err)
	}
	defer buffers.Free()
	nothingOld := func(*os.File) bool { return false }
	if err := c.dst.prepare(0, c.need, nothingOld); err != nil {
		return err
	}
	c.wantSums(digest.Unknown)
	c.hashed = 0
	p := c.newPump()
	defer p.close()
	size, err := c.drain(ctx, p, buffers.Get(0))
	if err != nil {
		return err
	}
	return c.endStream(ctx, size)
}

// drain moves leaf by leaf until the pipe ends, and returns how much came.
func (c *copier) drain(ctx context.Context, p *pump, buf []byte) (size int64, err error) {
	in := &interruptible{ctx, c.src.f}
	for seq := int64(0); ; seq++ {
		n, err := io.ReadFull(in, buf)
		c.prog.Read.Add(int64(n))
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return size, fmt.Errorf("read %s: %w", c.src.name, err)
		}
		if n > 0 {
			at := span{size, int64(n)}
			if err := p.move(ctx, piece{seq: seq, span: at, data: []span{at}}, buf[:n]); err != nil {
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
	c.src.size = size
	c.prog.Size.Store(size)
	if c.sums != nil {
		c.sums.End(size)
	}
	if c.dst.blank() {
		if err := c.dst.file().Truncate(size); err != nil {
			return outOfSpace(err)
		}
	}
	c.tell.flush()
	return c.finish(ctx)
}

// streamOut writes an image into a pipe, holes as zeroes. One request in flight keeps the order.
func (c *copier) streamOut(ctx context.Context, out *pipe) error {
	c.use(MethodStream)
	c.wantSums(c.src.size)
	c.hashed = 0
	src := newHandle(c.src.f, unix.O_RDONLY, c.opts.Direct != Never)
	defer src.close()
	s := sweep{
		src: src, requests: 1, limit: c.opts.Limit, whole: true, read: countedReader(src, &c.prog.Read),
		visit: func(ctx context.Context, p piece, b []byte) error { return c.send(ctx, out, p, b) },
	}
	if err := s.run(ctx, 0, c.src.size); err != nil {
		return err
	}
	c.tell.flush()
	return c.finish(ctx)
}

// send writes one piece.
func (c *copier) send(ctx context.Context, out *pipe, p piece, b []byte) error {
	c.tell.merge(Step{Off: p.off, Len: p.n, Method: MethodStream})
	if b != nil {
		if c.sums != nil {
			c.sums.Data(p.off, b)
		}
		n, err := out.w.Write(b)
		c.prog.Written.Add(int64(n))
		return wrapWrite(out, err)
	}
	if c.sums != nil {
		c.sums.Hole(p.off, p.n)
	}
	for left := p.n; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := out.w.Write(zeroes[:min(chunk, left)])
		c.prog.Holes.Add(int64(n))
		if err != nil {
			return wrapWrite(out, err)
		}
		left -= int64(n)
	}
	return nil
}

func wrapWrite(out *pipe, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write to %s: %w", out.w.Name(), outOfSpace(err))
}

// passOn copies from pipe to pipe.
func (c *copier) passOn(ctx context.Context, out *pipe) error {
	c.use(MethodStream)
	n, err := io.CopyBuffer(struct{ io.Writer }{out.w}, &interruptible{ctx, c.src.f}, make([]byte, chunk))
	c.prog.Written.Add(n)
	c.src.size = n
	if err != nil {
		return err
	}
	return out.commit(false)
}

// interruptible reads from a pipe that may be silent for hours, and still hears the context end. The descriptor is
// others' too, so it is not made non-blocking.
type interruptible struct {
	ctx context.Context
	f   *os.File
}

// pollEvery is how long, in milliseconds, an interruption may go unheard.
const pollEvery = 100

// Read implements io.Reader.
func (r *interruptible) Read(p []byte) (int, error) {
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollEvery)
		if err != nil && err != unix.EINTR {
			return 0, err
		}
		if err == nil && n > 0 {
			return r.f.Read(p)
		}
	}
}
