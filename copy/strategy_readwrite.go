// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"

	"imgward/copy/move"
)

// readingAndWriting is the strategy that always works.
var readingAndWriting = strategy{
	method:   move.MethodBuffer,
	excluded: func(*copier) string { return "" },
	run:      readAndWrite,
}

func readAndWrite(ctx context.Context, c *copier, from int64) (int64, string, error) {
	p := c.newPump()
	defer p.Close()
	if c.opts.OnError == Retry {
		p.Sums = nil // what a second try reads would not be in it
	} else {
		c.hashed = from
	}
	if err := p.Run(ctx, from, c.src.Size); err != nil {
		return from, "", err
	}
	if p.Salvage != nil && c.opts.OnError == Retry {
		if err := p.Salvage.Again(ctx, p.Dst); err != nil {
			return from, "", err
		}
	}
	return c.src.Size, "", nil
}

// newPump decides between direct and buffered I/O. A durable copy must reach the medium anyway, so it goes there
// straight; one that need not be durable is left to the page cache, which is faster than any medium.
func (c *copier) newPump() *move.Pump {
	p := move.NewPump(c.src.File, c.dst.File(), move.PumpOptions{
		DirectReads:  c.opts.Direct != Never,
		DirectWrites: c.opts.Direct == Always || c.opts.Direct == Auto && c.opts.Sync && move.DirectPays(c.dst.File()),
		Durable:      c.opts.Sync,
		Reserve:      c.dst.Blank() && !c.opts.Preallocate && !c.tight,
		Blank:        c.dst.Blank(),
		KeepZeroes:   c.opts.KeepZeroes,
		Limit:        c.opts.Limit, Requests: c.opts.Requests, Size: c.src.Size, Progress: c.prog,
	})
	p.Why, p.Order, p.Sums = c.why, c.order, c.sums
	p.Done = func() error { return c.journal.reached(c.order.Reached(), &c.bad) }
	if c.opts.OnError != Stop {
		p.Salvage = &move.Salvage{Src: p.Src, Bad: &c.bad, Log: c.opts.Log}
	}
	c.use(p.Method)
	return p
}
