package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// runStream copies when one side is a pipe: in order, one request at a time.
func (c *copier) runStream(ctx context.Context) error {
	c.prog.phase.Store(PhaseCopy)
	c.use(Step{Len: c.src.size, Method: MethodStream})
	buf, err := sys.Buffer(chunk)
	if err != nil {
		return fmt.Errorf("allocate a buffer: %w", err)
	}
	defer sys.FreeBuffer(buf)
	if out, ok := c.dst.(*pipe); ok {
		return c.streamOut(ctx, out, buf)
	}
	return c.streamIn(ctx, buf)
}

// streamIn writes a pipe into a file or device. The size shows at the end only, so the file grows as it comes.
func (c *copier) streamIn(ctx context.Context, buf []byte) error {
	if err := c.dst.prepare(0, c.need); err != nil {
		return err
	}
	p := c.newPump(0)
	defer p.dst.close()
	defer p.src.close()
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(c.src.f, buf)
		c.prog.Read.Add(int64(n))
		if n > 0 {
			if err := p.write(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return c.endStream(ctx, off)
		case err != nil:
			return fmt.Errorf("read %s: %w", c.src.name, err)
		}
	}
}

// endStream gives the file its size, for it may end with zeroes that were left out.
func (c *copier) endStream(ctx context.Context, size int64) error {
	c.src.size = size
	if c.dst.blank() {
		if err := c.dst.file().Truncate(size); err != nil {
			return outOfSpace(err)
		}
	}
	return c.finish(ctx)
}

// streamOut writes an image into a pipe, holes as zeroes.
func (c *copier) streamOut(ctx context.Context, out *pipe, buf []byte) error {
	if c.src.kind == stream {
		n, err := io.CopyBuffer(struct{ io.Writer }{out.w}, c.src.f, buf)
		c.prog.Written.Add(n)
		return err
	}
	src := newHandle(c.src.f, unix.O_RDONLY, c.opts.Direct != Never)
	defer src.close()
	s := extent.NewScanner(c.src.f, 0, c.src.size)
	for {
		e, ok, err := s.Next()
		if err != nil {
			return err
		}
		if !ok {
			return c.finish(ctx)
		}
		if err := c.sendExtent(ctx, out, src, e, buf); err != nil {
			return err
		}
	}
}

func (c *copier) sendExtent(ctx context.Context, out *pipe, src *handle, e extent.Extent, buf []byte) error {
	for off := e.Off; off < e.End(); {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b := zeroes[:min(chunk, e.End()-off)]
		if !e.Hole {
			b = buf[:len(b)]
			if _, err := src.readAt(b, off); err != nil {
				return err
			}
		}
		n, err := out.w.Write(b)
		c.prog.Written.Add(int64(n))
		if err != nil {
			return fmt.Errorf("write: %w", outOfSpace(err))
		}
		off += int64(n)
	}
	return nil
}
