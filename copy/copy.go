package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imgward/copy/digest"
	"imgward/copy/extent"
	"imgward/copy/internal/sys"
	"imgward/copy/rescue"
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
// ErrNoSpace, ErrVerify, ErrIncomplete or something else, and context.Cause(ctx) if ctx ended. After all of them a new
// destination does not exist, but for ErrIncomplete and failures to write what lies beside it (manifest, map).
func Copy(ctx context.Context, from, to string, o Options) (Result, error) {
	begun := time.Now()
	c, err := begin(ctx, from, to, &o)
	if err != nil {
		return Result{}, cause(ctx, err)
	}
	err = cause(ctx, c.run(ctx))
	c.end(ctx, err)
	o.Progress.phase.Store(PhaseDone)
	r := c.result()
	r.Elapsed = time.Since(begun)
	return r, err
}

// cause tells why ctx ended, if that is what err is about.
func cause(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// copier is one copy under way.
type copier struct {
	src      *source
	dst      target
	opts     *Options
	prog     *Progress
	tell     *teller
	order    *sequence
	journal  *journal     // nil: not to be resumed
	sums     *digest.Tree // of the source; nil: nobody asks for hashes
	hashed   int64        // offset from which on the transfer itself has fed sums
	bad      rescue.Map
	method   Method
	why      string // why not a better one
	repaired int
}

// begin opens both sides and looks at them. The target comes first to be judged: nobody's domain is suspended for a copy
// that cannot be written.
func begin(ctx context.Context, from, to string, o *Options) (*copier, error) {
	src, err := openSource(from)
	if err != nil {
		return nil, err
	}
	c := &copier{src: src, opts: o, prog: o.Progress, tell: newTeller(o.Explain), order: newSequence(0)}
	if c.dst, err = openTarget(ctx, to, src, o); err == nil {
		err = c.checkBeside(to)
	}
	if err == nil {
		err = src.admit(ctx, o, c.dst)
	}
	if err != nil {
		c.end(ctx, err)
		return nil, err
	}
	src.inspect(o.Log)
	if t, ok := c.dst.(*fresh); ok {
		t.adopt(src.snapshot)
	}
	c.prog.Size.Store(src.size)
	c.prog.Data.Store(src.data())
	return c, nil
}

// end cleans up. Of an unfinished copy only what can be resumed stays.
func (c *copier) end(ctx context.Context, err error) {
	interrupted := ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
	kept := err != nil && c.journal.keep(err, interrupted, c.order.reached(), &c.bad)
	if c.dst != nil {
		c.dst.abandon(kept)
	}
	c.src.close()
}

func (c *copier) run(ctx context.Context) error {
	c.prog.phase.Store(PhaseCopy)
	if c.src.kind == stream || isPipe(c.dst) {
		return c.runStream(ctx)
	}
	if c.opts.Resume && noAdoption(c) != "" {
		c.journal = openJournal(c)
	}
	if err := c.dst.prepare(c.src.size, c.need, c.resumes); err != nil {
		return err
	}
	if err := c.journal.begin(c.dst.file()); err != nil {
		return err
	}
	c.wantSums(c.src.size)
	if err := c.transfer(ctx, c.order.reached()); err != nil {
		return err
	}
	c.tell.flush()
	return c.finish(ctx)
}

// need is what the target will have to allocate: nothing if the source's blocks can be shared, which is tried on one; else
// its data. Zeroes that the source holds as data are not known before they are read.
func (c *copier) need() (int64, error) {
	if c.opts.Preallocate {
		return c.src.size, nil
	}
	if f := c.dst.scratch(); f != nil {
		defer f.Close()
		if noClone(c) == "" && sys.CloneRange(f, c.src.f, 0, min(cloneProbe, c.src.size)) == nil {
			return 0, nil
		}
	}
	v, err := extent.Take(c.src.f, c.src.size, 1<<30)
	return v.Data, err
}

// finish makes sure of the copy and publishes it.
func (c *copier) finish(ctx context.Context) error {
	if c.src.changed() {
		return fmt.Errorf("%s was written to while it was copied, so the copy would be torn: copy it again", c.src.name)
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	if c.opts.Preserve && c.dst.file() != nil && isRegular(c.dst.file()) {
		if err := preserve(c.dst.file(), c.src, c.opts.Log); err != nil {
			return err
		}
	}
	c.prog.phase.Store(PhaseSync)
	if err := c.dst.commit(c.opts.Sync); err != nil {
		return err
	}
	c.journal.done()
	if err := c.writeManifest(); err != nil {
		return err
	}
	return c.account()
}

// check verifies before anybody sees the image.
func (c *copier) check(ctx context.Context) error {
	if c.sums == nil {
		return nil
	}
	if err := c.hashRest(ctx); err != nil {
		return err
	}
	if !c.opts.Verify || c.dst.file() == nil {
		return nil
	}
	return c.verify(ctx)
}

// account reports what is wrong with an image that was copied as it is.
func (c *copier) account() error {
	if c.src.size == 0 && c.src.kind == stream {
		c.opts.Log.Warn("nothing came: the copy is empty", "image", c.src.name)
	}
	if c.src.size > 0 && (c.src.data() == 0 || c.prog.Zeroes.Load()+c.prog.Holes.Load() == c.src.size) {
		c.opts.Log.Warn("there is no data in this image, only zeroes: is it the right one?", "image", c.src.name)
	}
	missing := c.bad.Missing()
	if missing == 0 {
		return nil
	}
	if err := c.writeMap(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s of %s are zeroes in the copy; %s says where", ErrIncomplete, Bytes(missing), c.src.name, c.opts.Map)
}

func (c *copier) result() Result {
	return Result{
		Size: c.src.size, Method: c.method,
		Written: c.prog.Written.Load(), Cloned: c.prog.Cloned.Load(), Zeroes: c.prog.Zeroes.Load(),
		Holes: c.prog.Holes.Load(), Resumed: c.prog.Resumed.Load(),
		Missing: c.bad.Missing(), Repaired: c.repaired,
	}
}

// use takes note of how data moves.
func (c *copier) use(m Method) {
	c.method = m
	c.prog.method.Store(m)
}

// moved takes note of a step that was done in order.
func (c *copier) moved(s Step) {
	if s.Method == MethodHole {
		c.prog.Holes.Add(s.Len)
	} else {
		c.use(s.Method)
		c.prog.Cloned.Add(s.Len)
	}
	c.tell.merge(s)
	c.order.reach(s.Off + s.Len)
}

func isPipe(t target) bool { _, ok := t.(*pipe); return ok }
