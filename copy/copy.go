// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/manifest"
	"imgward/copy/move"
	"imgward/copy/rescue"
	"imgward/copy/source"
)

// Result is what a copy did, in bytes of the image.
type Result struct {
	Size     int64         `json:"size"`
	Method   move.Method   `json:"method"`
	Written  int64         `json:"written"`
	Cloned   int64         `json:"cloned"`
	Zeroes   int64         `json:"zeroes"`
	Holes    int64         `json:"holes"`
	Resumed  int64         `json:"resumed,omitempty"`
	Missing  int64         `json:"missing,omitempty"` // could not be read from the source
	Repaired int           `json:"repaired,omitempty"`
	Digest   string        `json:"digest,omitempty"` // the root of the tree of BLAKE3 hashes, if Options.Digest asked for it
	Elapsed  time.Duration `json:"elapsed_ns"`
}

// Copy copies the image named from to the name to; "-" is standard input or output. Errors are ErrInUse, ErrExists,
// ErrNoSpace, ErrVerify, ErrIncomplete or something else, and context.Cause(ctx) if ctx ended. After all of them a new
// destination does not exist, but for ErrIncomplete and failures to write what goes with it (manifest, map).
func Copy(ctx context.Context, from, to string, o Options) (Result, error) {
	begun := time.Now()
	c, err := begin(ctx, from, to, &o)
	if err != nil {
		return Result{}, Cause(ctx, err)
	}
	err = Cause(ctx, c.run(ctx))
	c.end(ctx, err)
	o.Progress.SetPhase(move.PhaseDone)
	r := c.result()
	r.Elapsed = time.Since(begun)
	return r, err
}

// Cause is why ctx ended, if that is what err is about.
func Cause(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// copier is one copy under way.
type copier struct {
	src      *source.Source
	dst      dest.Target // nil if pipe is not
	pipe     *dest.Pipe
	opts     *Options
	prog     *move.Progress
	order    *move.Sequence
	journal  *journal     // nil: not to be resumed
	sums     *digest.Tree // of the source; nil: nobody asks for hashes
	hashed   int64        // offset from which on the transfer itself has fed sums
	bad      rescue.Map
	tight    bool // there is no room for all of it: nothing is reserved for what may be zeroes
	method   move.Method
	why      string // why not a better one
	repaired int
	flat     *flattened // nil: the image is copied as it is
}

// begin opens both sides and looks at them. The target comes first to be judged: nobody's domain is suspended for a copy
// that cannot be written.
func begin(ctx context.Context, from, to string, o *Options) (*copier, error) {
	src, err := source.Open(from)
	if err != nil {
		return nil, err
	}
	c := &copier{src: src, opts: o, prog: o.Progress, order: move.NewSequence(0, o.Explain)}
	if err := checkStream(o, src.Kind == source.Stream, dest.IsPipe(to)); err != nil {
		src.Close()
		return nil, err
	}
	if err = c.open(ctx, to); err == nil {
		err = c.checkSidecars(to)
	}
	if err == nil {
		err = src.Admit(ctx, &o.Options.Options, dest.NewName(c.dst))
	}
	if err == nil {
		err = c.openFlat(ctx)
	}
	if err != nil {
		c.end(ctx, err)
		return nil, err
	}
	src.Inspect(&o.Options.Options)
	if o.Reflink != Never && !o.Preallocate { // a clone shares its blocks with the image
		dest.UseSnapshot(c.dst, src.Snapshot)
	}
	c.prog.Size.Store(src.Size)
	c.prog.Data.Store(src.Data())
	if c.flat != nil {
		c.prog.Size.Store(c.flat.Size)
		c.prog.Data.Store(0) // not known before the end
	}
	return c, nil
}

func (c *copier) open(ctx context.Context, to string) (err error) {
	if dest.IsPipe(to) {
		c.pipe, err = dest.OpenPipe(ctx, to, c.src, &c.opts.Options)
	} else {
		c.dst, err = dest.Open(ctx, to, c.src, &c.opts.Options)
	}
	return err
}

// end cleans up. Of an unfinished copy only what can be resumed stays.
func (c *copier) end(ctx context.Context, err error) {
	interrupted := ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
	kept := err != nil && c.journal.keep(err, interrupted, c.order.Reached(), &c.bad)
	if c.dst != nil {
		c.dst.Abandon(kept)
	}
	if c.pipe != nil {
		_ = c.pipe.Close() // a copy that is whole has closed it before
	}
	c.flat.close()
	c.src.Close()
}

func (c *copier) run(ctx context.Context) error {
	c.prog.SetPhase(move.PhaseCopy)
	if c.streams() {
		return c.runStream(ctx)
	}
	if err := c.writeFlat(ctx); err != nil {
		return err
	}
	keep, err := c.resume(ctx)
	if err != nil {
		return err
	}
	if err := c.shares(); err != nil {
		return err
	}
	if err := c.dst.Room(c.src.Size, c.need); err != nil {
		return err
	}
	if err := c.journal.begin(c.dst.File()); err != nil { // what cannot be resumed is not begun: its old contents are still there
		return err
	}
	if err := c.dst.Prepare(c.src.Size, keep); err != nil {
		return err
	}
	if err := c.journal.begin(c.dst.File()); err != nil {
		return err
	}
	c.wantSums(c.src.Size)
	if err := c.transfer(ctx, c.order.Reached()); err != nil {
		return err
	}
	c.order.Flush()
	return c.finish(ctx)
}

// finish makes sure of the copy and publishes it.
func (c *copier) finish(ctx context.Context) error {
	if c.src.Changed() {
		return fmt.Errorf("%s was written to while it was copied, so the copy would be torn: copy it again", c.src.Name)
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	if err := c.rewriteHeader(ctx); err != nil {
		return err
	}
	if err := c.publish(); err != nil {
		return err
	}
	if err := c.writeManifest(); err != nil {
		return err
	}
	return c.account()
}

func (c *copier) publish() error {
	if c.pipe != nil {
		return c.pipe.Close()
	}
	if c.opts.Preserve && move.IsRegular(c.dst.File()) {
		if err := dest.Preserve(c.dst.File(), c.src, c.opts.Log); err != nil {
			return err
		}
	}
	c.prog.SetPhase(move.PhaseSync)
	if err := c.dst.Commit(c.opts.Sync); err != nil {
		return err
	}
	c.journal.done()
	return nil
}

// check verifies before anybody sees the image.
func (c *copier) check(ctx context.Context) error {
	if c.sums == nil {
		return nil
	}
	if err := c.hashRest(ctx); err != nil {
		return err
	}
	if !c.opts.Verify {
		return nil
	}
	return c.verify(ctx)
}

// account reports what is wrong with an image that was copied as it is.
func (c *copier) account() error {
	if c.src.Size == 0 && c.src.Kind == source.Stream {
		c.opts.Log.Warn("nothing came through the pipe: the copy is empty", "image", c.src.Name)
	}
	if c.src.Size > 0 && (c.src.Data() == 0 || c.prog.Zeroes.Load()+c.prog.Holes.Load() == c.src.Size) {
		c.opts.Log.Warn("there is no data in this image, only zeroes: is it the right one?", "image", c.src.Name)
	}
	missing := c.bad.Missing()
	if missing == 0 {
		return nil
	}
	c.warnMissing()
	if err := c.writeMap(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s of %s are zeroes in the copy; %s says where", ErrIncomplete, move.Bytes(missing), c.src.Name, c.opts.Map)
}

// checkSidecars looks at the files that are to be written with the copy.
func (c *copier) checkSidecars(to string) error {
	var files []dest.Sidecar
	if c.opts.Manifest != "" {
		files = append(files, dest.Sidecar{Path: &c.opts.Manifest, Option: "--manifest", Magic: manifest.Magic})
	}
	if c.opts.OnError != Stop {
		files = append(files, dest.Sidecar{Path: &c.opts.Map, Option: "--map", Magic: rescue.Magic})
	}
	return dest.CheckSidecars(files, c.src.Name, to)
}

// writeMap leaves the account with the copy.
func (c *copier) writeMap() error {
	err := dest.WriteSidecar(c.opts.Map, rescue.Magic, func(w io.Writer) error { return c.bad.Write(w, c.src.Size) })
	if err != nil {
		return fmt.Errorf("the copy is there, but the map of its unreadable parts could not be written: %w", move.OutOfSpace(err))
	}
	return nil
}

// warnMissing names what could not be read in the end, a line for each run of it.
func (c *copier) warnMissing() {
	const most = 20
	bad := c.bad.Bad()
	for _, r := range bad[:min(most, len(bad))] {
		c.opts.Log.Warn("this part could not be read: the copy has zeroes there", "image", c.src.Name, "offset", r.Off, "bytes", r.Len)
	}
	if len(bad) > most {
		c.opts.Log.Warn("more parts could not be read; the map has them all", "parts", len(bad)-most, "map", c.opts.Map)
	}
}

func (c *copier) result() Result {
	var root string
	if c.opts.Digest && c.sums != nil && c.sums.Complete() {
		root = c.sums.Root().String()
	}
	return Result{
		Size: c.src.Size, Method: c.method, Digest: root,
		Written: c.prog.Written.Load(), Cloned: c.prog.Cloned.Load(), Zeroes: c.prog.Zeroes.Load(),
		Holes: c.prog.Holes.Load(), Resumed: c.prog.Resumed.Load(),
		Missing: c.bad.Missing(), Repaired: c.repaired,
	}
}

// use takes note of how data moves.
func (c *copier) use(m move.Method) {
	c.method = m
	c.prog.SetMethod(m)
}

// moved takes note of a step that was done in order.
func (c *copier) moved(s move.Step) {
	if s.Method == move.MethodHole {
		c.prog.Holes.Add(s.Len)
	} else {
		c.use(s.Method)
		c.prog.Cloned.Add(s.Len)
	}
	c.order.Add(s)
}

// streams says that one side at least is a pipe.
func (c *copier) streams() bool { return c.src.Kind == source.Stream || c.pipe != nil }
