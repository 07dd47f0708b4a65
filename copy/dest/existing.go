// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
	"imgward/guard"
)

// existing is a file or device that is there already, opened and locked, and looked at from every side: nobody uses it.
type existing struct {
	f       *os.File
	path    string
	release func() // of the image locks
}

// seize opens path in QEMU's own order: without O_TRUNC, then the image locks, then all evidence. Only what has passed
// may be touched. flags are added to O_RDWR, O_EXCL for a device.
func seize(ctx context.Context, path string, flags int, o *Options) (*existing, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, cannotOpen(ctx, path, err, o)
	}
	return hold(ctx, os.NewFile(uintptr(fd), path), path, o)
}

// hold locks f, which it closes after an error, and asks for all evidence.
func hold(ctx context.Context, f *os.File, path string, o *Options) (*existing, error) {
	e := &existing{f: f, path: path, release: func() {}}
	if err := e.lock(ctx, o); err != nil {
		e.f.Close()
		return nil, err
	}
	if err := e.idle(ctx, o); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// lock takes QEMU's image locks. A running machine holds them too, so they stand in the way of an administrator's
// exception, which outweighs them.
func (e *existing) lock(ctx context.Context, o *Options) error {
	if o.Locks == nil {
		return nil
	}
	release, err := o.Locks.Write(e.f)
	switch {
	case err == nil:
		e.release = release
		return nil
	case errors.Is(err, source.ErrInUse) && o.Users != nil && o.Users.Permitted(ctx, e.f):
		o.Log.Warn("overwriting an image in use: an exception permits it", "image", e.path)
		return nil
	}
	return explainLocked(ctx, e.f, e.path, err, o)
}

// idle makes sure that nobody uses what is locked. The locks are this process's own by now.
func (e *existing) idle(ctx context.Context, o *Options) error {
	return idle(ctx, e.f, e.path, o, source.WithoutLocks)
}

// anyUse lets all evidence count.
func anyUse(uses []guard.Use) []guard.Use { return uses }

// idle asks for all evidence, as far as counts lets it count. An administrator's exception is the only thing that outweighs
// it.
func idle(ctx context.Context, f *os.File, path string, o *Options, counts func([]guard.Use) []guard.Use) error {
	if o.Users == nil {
		return detached(f, path)
	}
	uses, err := o.Users.InUse(ctx, f)
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", path, err)
	}
	uses = counts(uses)
	for _, u := range uses {
		if u.Role == guard.RoleBacking {
			o.Log.Warn("the image is a backing file: every overlay on it breaks when it changes", "image", path)
		}
	}
	if len(uses) == 0 {
		return detached(f, path)
	}
	if o.Users.Permitted(ctx, f) {
		return nil
	}
	return &source.InUseError{Path: path, Uses: uses, Hint: overwriteHint(path)}
}

// detached makes sure that no loop device shows the file: whoever has it mounted is no domain.
func detached(f *os.File, path string) error {
	loops, err := source.Attached(f)
	if err != nil || len(loops) == 0 {
		return err
	}
	return fmt.Errorf("%s is %w: it is attached as %s (losetup -d detaches it)", path, source.ErrInUse, strings.Join(loops, ", "))
}

func (e *existing) File() *os.File { return e.f }

func (e *existing) Close() {
	e.release()
	e.f.Close()
}

// overwriteHint is the way out for somebody who was about to overwrite a disk in use.
func overwriteHint(path string) string {
	if next := NextFree(path); next != "" {
		return "it was not touched. Next free name: " + next
	}
	return "it was not touched. Shut the domain down first, or choose another name"
}

// cannotOpen explains a refused open: a view answers EBUSY for an image in use, and so does a device that is held.
func cannotOpen(ctx context.Context, path string, err error, o *Options) error {
	wrapped := &os.PathError{Op: "open for writing", Path: path, Err: err}
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ETXTBSY) {
		return wrapped
	}
	f, openErr := source.OpenFile(path)
	if openErr != nil {
		return fmt.Errorf("%w: %w", source.ErrInUse, wrapped)
	}
	defer f.Close()
	return explainLocked(ctx, f, path, fmt.Errorf("%w: %w", source.ErrInUse, wrapped), o)
}

// explainLocked turns "in use" into who uses it, if that can be found out.
func explainLocked(ctx context.Context, f *os.File, path string, err error, o *Options) error {
	if !errors.Is(err, source.ErrInUse) || o.Users == nil {
		return err
	}
	uses, usesErr := o.Users.InUse(ctx, f)
	if usesErr != nil || len(uses) == 0 {
		return fmt.Errorf("%w; %s", err, overwriteHint(path))
	}
	return &source.InUseError{Path: path, Uses: uses, Hint: overwriteHint(path)}
}

// openExisting is the target for a regular file that exists.
func openExisting(ctx context.Context, path string, src *source.Source, o *Options) (Target, error) {
	if o.Overwrite == Refuse {
		return nil, Exists(ctx, path, "", o)
	}
	e, err := seize(ctx, path, 0, o)
	if err != nil {
		return nil, err
	}
	if overlays := overlaysOf(ctx, e.f, path); len(overlays) > 0 {
		o.Log.Warn("the image is a backing file: these overlays break when it changes", "image", path,
			"overlays", strings.Join(overlays, ", "))
	}
	if o.Overwrite == InPlace {
		return &inplace{existing: e, opts: o}, nil
	}
	t, err := NewFile(path, permOf(src), e, o)
	if err != nil {
		e.Close()
		return nil, err
	}
	return t, nil
}

// Exists refuses a destination that is there already, as in use if somebody uses it: then --overwrite would not help. contents
// says what is on a block device.
func Exists(ctx context.Context, path, contents string, o *Options) error {
	f, err := source.OpenFile(path)
	if err == nil {
		defer f.Close()
		if err := idle(ctx, f, path, o, anyUse); errors.Is(err, source.ErrInUse) {
			return err
		}
	}
	return &ExistsError{Path: path, Contents: contents, Next: NextFree(path)}
}
