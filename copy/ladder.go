package imgcopy

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// transfer climbs down the ladder until a rung holds: share the blocks, have the kernel or a server copy, read and write.
func (c *copier) transfer(ctx context.Context) error {
	done, err := c.clone()
	if done || err != nil {
		return err
	}
	from, err := c.kernelCopy(ctx)
	if err != nil || from == c.src.size {
		return err
	}
	return c.pump(ctx, from)
}

// clone shares the whole image with one call, if both are files of one file system with reflinks.
func (c *copier) clone() (bool, error) {
	if c.opts.Reflink == Never || c.src.kind != regular || c.opts.Preallocate || !isRegular(c.dst.file()) {
		return false, nil
	}
	err := sys.Clone(c.dst.file(), c.src.f)
	switch {
	case err == nil:
		c.use(Step{Len: c.src.size, Method: MethodClone})
		c.prog.Cloned.Add(c.src.size)
		return true, nil
	case c.opts.Reflink == Always && !copiesElsewhere(c.dst.file()):
		return false, fmt.Errorf("--reflink=always: %w", outOfSpace(err))
	case sys.Unsupported(err):
		return false, nil
	}
	return false, outOfSpace(err)
}

// kernelCopy lets copy_file_range(2) do it where somebody behind the kernel does better than reading and writing: a
// FUSE view hands a whole range to its daemon in one request, which clones it if the backing file system can; NFS 4.2
// and SMB copy on the server. On a local disk file system without reflinks the kernel would only push pages through
// its cache, and zeroes with them. It returns the offset up to which everything is done.
func (c *copier) kernelCopy(ctx context.Context) (int64, error) {
	if c.opts.Reflink == Never || c.src.kind != regular || c.opts.Preallocate || !copiesElsewhere(c.dst.file()) {
		return 0, nil
	}
	s := extent.NewScanner(c.src.f, 0, c.src.size)
	for {
		e, ok, err := s.Next()
		if err != nil {
			return 0, err
		}
		if !ok {
			return c.src.size, nil
		}
		if e.Hole {
			c.prog.Holes.Add(e.Len)
			continue
		}
		off, err := c.copyRange(ctx, e)
		if err != nil || off < e.End() {
			return off, err
		}
	}
}

// copyRange copies one extent and returns how far it came; a file system that cannot go on is no error.
func (c *copier) copyRange(ctx context.Context, e extent.Extent) (int64, error) {
	for off := e.Off; off < e.End(); {
		if err := ctx.Err(); err != nil {
			return off, context.Cause(ctx)
		}
		n, err := sys.CopyRange(c.dst.file(), c.src.f, off, e.End()-off)
		if sys.Unsupported(err) || err == nil && n == 0 {
			return off, nil
		}
		if err != nil {
			return off, outOfSpace(err)
		}
		c.use(Step{Off: off, Len: n, Method: MethodKernel})
		c.prog.Cloned.Add(n)
		off += n
	}
	return e.End(), nil
}

// pump reads and writes what lies after from.
func (c *copier) pump(ctx context.Context, from int64) error {
	p := c.newPump(from)
	defer p.src.close()
	defer p.dst.close()
	if p.salvage == nil {
		return p.run(ctx, from, c.src.size)
	}
	if err := p.run(ctx, from, c.src.size); err != nil {
		return err
	}
	if c.opts.OnError == Retry {
		return p.salvage.again(ctx, p.dst)
	}
	return nil
}

// newPump decides between direct and buffered I/O. A durable copy must reach the medium anyway, so it goes there
// straight; one that need not be durable is left to the page cache, which is faster than any medium.
func (c *copier) newPump(from int64) *pump {
	direct := c.opts.Direct == Always || c.opts.Direct == Auto && c.opts.Sync
	p := &pump{
		src:  newHandle(c.src.f, unix.O_RDONLY, c.opts.Direct != Never),
		dst:  newHandle(c.dst.file(), unix.O_RDWR, direct),
		opts: c.opts, prog: c.prog, blank: c.dst.blank(),
		order: newSequence(from),
	}
	p.zero = &zeroer{h: p.dst}
	method := MethodBuffer
	if p.dst.direct != nil {
		method = MethodDirect
	}
	if c.opts.Sync {
		p.trail = &trail{f: c.dst.file(), direct: p.dst.direct != nil}
	}
	if c.opts.OnError != Stop {
		p.salvage = &salvage{src: p.src, log: c.opts.Log}
		c.salvage = p.salvage
	}
	c.use(Step{Off: from, Len: c.src.size - from, Method: method})
	return p
}
