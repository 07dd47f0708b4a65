// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"

	"imgward/copy/dest"
	"imgward/copy/extent"
	"imgward/copy/move"
)

// strategy is one way to move an image; each is one file.
type strategy struct {
	method move.Method
	// excluded says why this strategy cannot work, as far as looking shows; "" if it is worth a try.
	excluded func(c *copier) string
	// try tries it on a scratch file for a plan, and says why it does not work; nil: it always does.
	try func(c *copier, from int64) string
	// run copies from an offset on, as far as it can. Coming less far than the end is no error: why says what kept it,
	// and the next strategy goes on from there.
	run func(ctx context.Context, c *copier, from int64) (reached int64, why string, err error)
}

// strategies is every way there is, best first. The last one always gets to the end.
func strategies() []strategy { return []strategy{renaming, cloning, kernelCopying, readingAndWriting} }

// transfer tries one strategy after the other until everything after from is copied.
func (c *copier) transfer(ctx context.Context, from int64) error {
	if from == c.src.Size {
		return nil
	}
	for _, s := range strategies() {
		if s.method == move.MethodBuffer && c.opts.Reflink == Always {
			return errNoReflink(c)
		}
		why := s.excluded(c)
		fit := why == ""
		if fit {
			var err error
			if from, why, err = s.run(ctx, c, from); err != nil || from == c.src.Size {
				return move.OutOfSpace(err)
			}
			from = from / move.Chunk * move.Chunk // pieces and leaves begin at whole chunks
		}
		c.noteSkipped(s, why, fit)
	}
	return fmt.Errorf("copied up to byte %d of %d and no further", from, c.src.Size)
}

// noteSkipped remembers why there is no reflink, which is what people ask about a slow copy: the reason of the
// last strategy that might have worked.
func (c *copier) noteSkipped(s strategy, why string, tried bool) {
	c.opts.Log.Debug("next strategy", "not", s.method, "why", why)
	if tried || s.method == move.MethodClone {
		c.why = "no reflink: " + why
	}
}

// shares makes sure, before the target is touched, that blocks can be shared where nothing else will do.
func (c *copier) shares() error {
	if c.opts.Reflink != Always {
		return nil
	}
	undo, err := c.rehearse()
	if err != nil {
		return err
	}
	defer undo()
	if s := c.choose(0); s.method == move.MethodBuffer {
		return errNoReflink(c)
	}
	return nil
}

// need is what the target will have to allocate at least: nothing if the source's blocks can be shared, which is tried on
// one; else its data. A device calls everything data, and a file may hold zeroes that were written: that is looked at in
// samples, since the copy leaves them out.
func (c *copier) need() (int64, error) {
	if c.opts.Preallocate {
		return c.src.Size, nil
	}
	undo, err := c.rehearse()
	if err != nil {
		return 0, err
	}
	shares := noClone(c) == "" && c.inKernel().TryClone(0) == ""
	undo()
	if shares {
		return 0, nil
	}
	c.tight = true
	v, err := extent.Take(c.src.File, c.src.Size, 1<<30)
	if err != nil || c.opts.KeepZeroes {
		return v.Data, err
	}
	return dest.EstimateData(c.src.File, c.src.Size, v.Data)
}

func errNoReflink(c *copier) error { return errors.New("--reflink=always: " + c.why) }

// rehearse puts a scratch file in the place of the target, if there can be one, until undo is called.
func (c *copier) rehearse() (undo func(), err error) {
	f, err := c.dst.Scratch(c.src.Size)
	if f == nil {
		return func() {}, err
	}
	real := c.dst
	c.dst = &rehearsal{real, f}
	return func() { c.dst = real; f.Close() }, nil
}

// rehearsal is a target with a scratch file in the place of its own.
type rehearsal struct {
	dest.Target
	f *os.File
}

// File implements dest.Target.
func (r *rehearsal) File() *os.File { return r.f }

// choose finds the first strategy that works as far as a trial on a scratch file shows. The last one always does.
func (c *copier) choose(from int64) strategy {
	list := strategies()
	for _, s := range list[:len(list)-1] {
		why := s.excluded(c)
		tried := why == ""
		if tried && s.try != nil {
			why = s.try(c, from)
		}
		if why == "" {
			return s
		}
		c.noteSkipped(s, why, tried)
	}
	return list[len(list)-1]
}
