package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imgward/copy/extent"
)

// Result is what a copy did, in bytes of the image.
type Result struct {
	Size     int64         `json:"size"`
	Method   Method        `json:"method"`
	Written  int64         `json:"written"`
	Cloned   int64         `json:"cloned"`
	Zeroes   int64         `json:"zeroes"`
	Holes    int64         `json:"holes"`
	Resumed  int64         `json:"resumed,omitempty"`
	Missing  int64         `json:"missing,omitempty"` // could not be read from the source
	Repaired int           `json:"repaired,omitempty"`
	Elapsed  time.Duration `json:"elapsed_ns"`
}

// Copy copies the image named from to the name to; "-" is standard input or output. Errors are ErrInUse, ErrExists,
// ErrNoSpace, ErrVerify, ErrIncomplete or something else, and context.Cause(ctx) if ctx ended; after all of them but
// ErrIncomplete a new destination does not exist.
func Copy(ctx context.Context, from, to string, o Options) (Result, error) {
	begun := time.Now()
	c, err := begin(ctx, from, to, &o)
	if err != nil {
		return Result{}, err
	}
	defer c.end()
	err = c.run(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	o.Progress.phase.Store(PhaseDone)
	r := c.result()
	r.Elapsed = time.Since(begun)
	return r, err
}

// copier is one copy under way.
type copier struct {
	src      *source
	dst      target
	opts     *Options
	prog     *Progress
	method   Method
	salvage  *salvage
	repaired int
}

// begin opens both sides and looks at them. The target comes first to be judged: nobody's domain is suspended for a copy
// that cannot be written.
func begin(ctx context.Context, from, to string, o *Options) (*copier, error) {
	src, err := openSource(from)
	if err != nil {
		return nil, err
	}
	c := &copier{src: src, opts: o, prog: o.Progress}
	if c.dst, err = openTarget(ctx, to, src, o); err == nil {
		err = src.admit(ctx, o, to)
	}
	if err != nil {
		c.end()
		return nil, err
	}
	c.prog.Size.Store(src.size)
	return c, nil
}

func (c *copier) end() {
	if c.dst != nil {
		c.dst.abandon()
	}
	c.src.close()
}

func (c *copier) run(ctx context.Context) error {
	if c.src.kind == stream || isPipe(c.dst) {
		return c.runStream(ctx)
	}
	if err := c.dst.prepare(c.src.size, c.need); err != nil {
		return err
	}
	c.prog.phase.Store(PhaseCopy)
	if err := c.transfer(ctx); err != nil {
		return err
	}
	return c.finish(ctx)
}

// need is what the target will have to allocate. A clone allocates nothing, but whether there can be one is known only
// when it is tried, and then it is too late to say this kindly; so data counts.
func (c *copier) need() (int64, error) {
	if c.opts.Preallocate {
		return c.src.size, nil
	}
	v, err := extent.Take(c.src.f, c.src.size, 1<<30)
	return v.Data, err
}

// finish makes sure of the copy and publishes it.
func (c *copier) finish(ctx context.Context) error {
	if c.src.changed() {
		return fmt.Errorf("%s was written to while it was copied, so the copy would be torn: copy it again", c.src.name)
	}
	if c.opts.Preserve && isRegular(c.dst.file()) {
		if err := preserve(c.dst.file(), c.src, c.opts.Log); err != nil {
			return err
		}
	}
	c.prog.phase.Store(PhaseSync)
	if err := c.dst.commit(c.opts.Sync); err != nil {
		return err
	}
	if c.salvage == nil || c.salvage.bad.Missing() == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s of %s are zeroes in the copy", ErrIncomplete, Bytes(c.salvage.bad.Missing()), c.src.name)
}

func (c *copier) result() Result {
	r := Result{
		Size: c.src.size, Method: c.method,
		Written: c.prog.Written.Load(), Cloned: c.prog.Cloned.Load(), Zeroes: c.prog.Zeroes.Load(),
		Holes: c.prog.Holes.Load(), Resumed: c.prog.Resumed.Load(), Repaired: c.repaired,
	}
	if c.salvage != nil {
		r.Missing = c.salvage.bad.Missing()
	}
	return r
}

func (c *copier) use(s Step) {
	c.method = s.Method
	c.prog.method.Store(s.Method)
	c.opts.explain(s)
}

func isPipe(t target) bool { _, ok := t.(*pipe); return ok }
