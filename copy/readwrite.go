package imgcopy

import (
	"context"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// readingAndWriting is the rung that always holds.
var readingAndWriting = rung{
	method: MethodBuffer,
	unfit:  func(*copier) string { return "" },
	climb:  readAndWrite,
}

func readAndWrite(ctx context.Context, c *copier, from int64) (int64, string, error) {
	p := c.newPump()
	defer p.close()
	if c.opts.OnError == Retry {
		p.sums = nil // what a second try reads would not be in it
	} else {
		c.hashed = from
	}
	if err := p.run(ctx, from, c.src.size); err != nil {
		return from, "", err
	}
	if p.salvage != nil && c.opts.OnError == Retry {
		if err := p.salvage.again(ctx, p.dst); err != nil {
			return from, "", err
		}
	}
	return c.src.size, "", nil
}

// cacheToCache is how many requests are in flight from page cache to page cache, where nothing waits for a device: one
// reads while the other writes. More take turns at the target's lock with buffers that have left the CPU's cache
// meanwhile (measured: 8 took a quarter more CPU time than 2).
const cacheToCache = 2

// mostlyCached is a guess from what is in the page cache now.
func mostlyCached(src *handle, size int64) bool {
	data := size
	if isRegular(src.f) {
		data = min(size, allocated(src.f))
	}
	cached, ok := sys.Cached(src.f, 0, size)
	return ok && cached > data/2
}

// newPump decides between direct and buffered I/O. A durable copy must reach the medium anyway, so it goes there
// straight; one that need not be durable is left to the page cache, which is faster than any medium.
func (c *copier) newPump() *pump {
	direct := c.opts.Direct == Always || c.opts.Direct == Auto && c.opts.Sync && directPays(c.dst.file())
	p := &pump{
		src:  newHandle(c.src.f, unix.O_RDONLY, c.opts.Direct != Never),
		dst:  newHandle(c.dst.file(), unix.O_RDWR, direct),
		opts: c.opts, prog: c.prog, requests: c.opts.Requests, blank: c.dst.blank(), why: c.why,
		order: c.order, sums: c.sums, tell: c.tell, method: MethodBuffer,
		done: func() error { return c.journal.reached(c.order.reached(), &c.bad) },
	}
	p.zero = &zeroer{h: p.dst}
	if p.dst.direct != nil {
		p.method = MethodDirect
		if p.blank && !c.opts.Preallocate {
			p.ahead = &reserver{f: c.dst.file()}
		}
	}
	if p.dst.direct == nil && mostlyCached(p.src, c.src.size) {
		p.requests = min(p.requests, cacheToCache)
	}
	if c.opts.Sync {
		p.dst.trail = &trail{f: c.dst.file()}
	}
	if c.opts.OnError != Stop {
		p.salvage = &salvage{src: p.src, bad: &c.bad, log: c.opts.Log}
	}
	c.use(p.method)
	return p
}
