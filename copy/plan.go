// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"

	"imgward/copy/extent"
	"imgward/copy/move"
	"imgward/copy/source"
)

// Plan says what Copy would do, step by step in the order of the image. What the file systems can do is tried out on a
// file without a name; nothing else is written. It fails where Copy would fail before its first write. Zeroes that an
// image holds as data are found by reading only, so Copy's own account (Options.Explain) may have more holes.
func Plan(ctx context.Context, from, to string, o Options, report func(move.Step)) error {
	o.Explain, o.Confirm = report, nil
	if o.Live != nil {
		o.Live = asIfLive{o.Live}
	}
	c, err := begin(ctx, from, to, &o)
	if err != nil {
		return err
	}
	defer c.end(ctx, nil)
	if c.flat != nil {
		c.order.Add(move.Step{Len: c.flat.Size, Method: move.MethodFlat})
	} else if c.streams() {
		c.order.Add(move.Step{Len: c.src.Size, Method: move.MethodStream})
	} else if err := c.plan(ctx); err != nil {
		return Cause(ctx, err)
	}
	c.order.Flush()
	_, err = c.header()
	return err
}

// asIfLive stands for the consistent copy that is not made for a plan.
type asIfLive struct{ live source.Live }

// Snapshot implements source.Live.
func (l asIfLive) Snapshot(ctx context.Context, i source.LiveImage) (*source.Snapshot, error) {
	if p, ok := l.live.(source.Planner); ok {
		if err := p.Plan(ctx, i); err != nil {
			return nil, err
		}
	}
	return &source.Snapshot{File: i.File, Close: func() error { return nil }}, nil
}

func (c *copier) plan(ctx context.Context) error {
	from, err := c.resume(ctx)
	if err != nil {
		return err
	}
	if err := c.shares(); err != nil {
		return err
	}
	if err := c.dst.Room(c.src.Size, c.need); err != nil {
		return err
	}
	undo, err := c.rehearse()
	if err != nil {
		return err
	}
	defer undo()
	s := c.choose(from)
	return c.planExtents(ctx, s.method, from)
}

// planExtents reports what a strategy makes of each extent.
func (c *copier) planExtents(ctx context.Context, m move.Method, from int64) error {
	if m == move.MethodClone || m == move.MethodRename {
		c.order.Add(move.Step{Off: from, Len: c.src.Size - from, Method: m})
		return nil
	}
	data := move.Step{Method: m, Why: c.why}
	hole := move.MethodHole
	if m == move.MethodBuffer {
		p := c.newPump()
		defer p.Close()
		data.Method = p.Method
		if !p.Blank {
			hole = move.MethodPunch
		}
	}
	for s := extent.NewScanner(c.src.File, from, c.src.Size); ctx.Err() == nil; {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return err
		}
		step := data
		if e.Hole {
			step = move.Step{Method: hole}
		}
		step.Off, step.Len = e.Off, e.Len
		c.order.Add(step)
	}
	return context.Cause(ctx)
}
