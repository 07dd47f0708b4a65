// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"imgward/copy/dest"
	"imgward/copy/flat"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
	"imgward/guard"
)

// flattened is an image that is to become one raw image without others (Options.Flat).
type flattened struct {
	*flat.Image
	release func()
	changed func() string
}

// openFlat finds out what the image is made of, and keeps all of it from changing. An image that is raw is copied like any other.
func (c *copier) openFlat(ctx context.Context) error {
	if !c.opts.Flat {
		return nil
	}
	path, err := filepath.Abs(c.src.Name)
	if err != nil {
		return err
	}
	im, err := flat.Open(ctx, c.src.File, path, guard.HostDirect{}.Open)
	if err != nil {
		if errors.Is(err, flat.ErrFormat) {
			err = fmt.Errorf("%w. To make one image of it: qemu-img convert -O raw %s COPY", err, guard.ShellWord(c.src.Name))
		}
		return fmt.Errorf("--flat: %w", err)
	}
	if im.Plain {
		im.Close()
		return nil
	}
	c.flat = &flattened{Image: im, release: func() {}}
	if err := c.checkFlat(); err != nil {
		return err
	}
	c.flat.release, c.flat.changed, err = source.Hold(ctx, im.Others, source.NeededHint, &c.opts.Options.Options)
	if err != nil {
		c.flat.release = func() {}
	}
	return err
}

// checkFlat refuses what a disk that is put together from files cannot have.
func (c *copier) checkFlat() error {
	for _, r := range []struct {
		option string
		asked  bool
	}{
		{"--resume", c.opts.Resume}, {"--preallocate", c.opts.Preallocate}, {"--sparse=never", c.opts.KeepZeroes},
		{"--on-error", c.opts.OnError != Stop}, {"--reflink=always", c.opts.Reflink == Always},
	} {
		if r.asked {
			return &OptionError{r.option, "not with --flat, which puts the image together from its files"}
		}
	}
	if dest.NewName(c.dst) == "" {
		return fmt.Errorf("--flat makes a new file. Into what is there: qemu-img convert -n -O raw %s DESTINATION", guard.ShellWord(c.src.Name))
	}
	return nil
}

func (f *flattened) close() {
	if f != nil {
		f.release()
		f.Close()
	}
}

// writeFlat puts the disk together in a file that becomes the copy.
func (c *copier) writeFlat(ctx context.Context) (err error) {
	if c.flat == nil {
		return nil
	}
	snap, err := tempFor(dest.NewName(c.dst))
	if err != nil {
		return move.OutOfSpace(err)
	}
	before := c.src.Snapshot
	undo := snap.Close
	snap.Close = func() error {
		err := undo()
		if before != nil {
			err = errors.Join(err, before.Close())
		}
		return err
	}
	c.use(move.MethodFlat)
	o := flat.Options{Share: c.opts.Reflink != Never, Limit: c.opts.Limit, Progress: c.prog}
	if err = c.flat.Write(ctx, snap.File, o); err == nil && c.opts.Verify {
		c.prog.SetPhase(move.PhaseVerify)
		if err = c.flat.Compare(ctx, snap.File, c.prog); errors.Is(err, flat.ErrDiffers) {
			err = fmt.Errorf("%w: %w", ErrVerify, err)
		}
	}
	if name := c.flat.changed(); err == nil && (name != "" || c.src.Changed()) {
		err = fmt.Errorf("%s%s was written to while it was copied, so the copy would be torn: copy it again", c.src.Name, also(name))
	}
	if err != nil {
		return errors.Join(err, undo())
	}
	if err := c.src.Use(snap); err != nil {
		return err
	}
	dest.UseSnapshot(c.dst, snap)
	return nil
}

func also(name string) string {
	if name == "" {
		return ""
	}
	return " (" + name + ")"
}

// tempFor is a new file that may take the name path: without one wherever that can be given later.
func tempFor(path string) (*source.Snapshot, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if sys.LinksUnnamed(dir) {
		f, err := sys.TempFile(dir, path, 0o600)
		if err != nil {
			return nil, err
		}
		return &source.Snapshot{File: f, Unnamed: true, Close: f.Close}, nil
	}
	f, err := os.CreateTemp(dir.Name(), sys.HiddenName(filepath.Base(path), "*"))
	if err != nil {
		return nil, err
	}
	return &source.Snapshot{File: f, Name: f.Name(), Close: func() error {
		err := os.Remove(f.Name()) // gone if it has become the copy
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, f.Close())
	}}, nil
}
