package imgcopy

import (
	"context"
	"os"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// Plan tells what Copy would do, step by step in the order of the image. What the file systems can do is tried out on a
// file without a name; nothing else is written. It fails where Copy would fail before its first write. Zeroes that an
// image holds as data are found by reading only, so Copy's own account (Options.Explain) may have more holes.
func Plan(ctx context.Context, from, to string, o Options, tell func(Step)) error {
	o.Explain, o.Confirm = tell, nil
	if o.Live != nil {
		o.Live = asIfLive{}
	}
	c, err := begin(ctx, from, to, &o)
	if err != nil {
		return err
	}
	defer c.end(ctx, nil)
	if c.src.kind == stream || isPipe(c.dst) {
		c.tell.merge(Step{Len: c.src.size, Method: MethodStream})
	} else if err := c.plan(ctx); err != nil {
		return cause(ctx, err)
	}
	c.tell.flush()
	return nil
}

// asIfLive stands for the consistent copy that is not made for a plan.
type asIfLive struct{}

// Snapshot implements Live.
func (asIfLive) Snapshot(_ context.Context, i LiveImage) (*Snapshot, error) {
	return &Snapshot{File: i.File, Close: func() error { return nil }}, nil
}

// rehearsal is a target with a scratch file in the place of its own.
type rehearsal struct {
	target
	f *os.File
}

func (r *rehearsal) file() *os.File { return r.f }

func (r *rehearsal) abandon(resumable bool) {
	r.target.abandon(resumable)
	r.f.Close()
}

func (c *copier) plan(ctx context.Context) error {
	if f := c.dst.scratch(); f != nil {
		c.dst = &rehearsal{c.dst, f}
		if err := f.Truncate(c.src.size); err != nil {
			return outOfSpace(err)
		}
	}
	from := int64(0)
	if c.opts.Resume {
		if j := openJournal(c); j != nil && j.old {
			from = j.state.Durable
			c.tell.merge(Step{Len: from, Method: MethodDone})
		}
	}
	for _, r := range ladder() {
		why := r.unfit(c)
		if why == "" && r.rehearse != nil {
			why = r.rehearse(c, from)
		}
		if why == "" {
			return c.planExtents(ctx, r.method, from)
		}
		c.passOver(r, why, r.unfit(c) == "")
	}
	return nil // not reached: the last rung always fits
}

// planExtents tells what a rung makes of each extent.
func (c *copier) planExtents(ctx context.Context, m Method, from int64) error {
	if m == MethodClone || m == MethodAdopt {
		c.tell.merge(Step{Off: from, Len: c.src.size - from, Method: m})
		return nil
	}
	data := Step{Method: m, Why: c.why}
	hole := MethodHole
	if m == MethodBuffer {
		p := c.newPump()
		defer p.close()
		data.Method = p.method
		if !p.blank {
			hole = MethodPunch
		}
	}
	for s := extent.NewScanner(c.src.f, from, c.src.size); ctx.Err() == nil; {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return err
		}
		step := data
		if e.Hole {
			step = Step{Method: hole}
		}
		step.Off, step.Len = e.Off, e.Len
		c.tell.merge(step)
	}
	return context.Cause(ctx)
}

// cloneProbe is a multiple of every block size in use.
const cloneProbe = 64 << 10

// rehearseClone shares the first block.
func rehearseClone(c *copier, from int64) string {
	if c.src.size == from {
		return ""
	}
	if err := sys.CloneRange(c.dst.file(), c.src.f, from, min(cloneProbe, c.src.size-from)); err != nil {
		return cloneProblem(err)
	}
	return ""
}

// rehearseKernelCopy copies the first data, as much of it as it takes to see whether it is cloned.
func rehearseKernelCopy(c *copier, from int64) string {
	k := kernelCopier{c: c, doubtful: behind(c.dst.file()) == daemon}
	at, ok, err := sys.NextData(c.src.f, from)
	if err != nil || !ok {
		return ""
	}
	n, clones, err := k.request(at, min(probeLen, c.src.size-at))
	switch {
	case err != nil || n == 0:
		return kernelCopyFails
	case !clones:
		return daemonCopies
	}
	return ""
}
