package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
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
	e := &existing{f: os.NewFile(uintptr(fd), path), path: path, release: func() {}}
	if err := e.lock(ctx, o); err != nil {
		e.f.Close()
		return nil, err
	}
	if err := e.idle(ctx, o); err != nil {
		e.close()
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
	case errors.Is(err, ErrInUse) && o.Users != nil && o.Users.Permitted(ctx, e.f):
		o.Log.Warn("overwriting an image in use: an exception permits it", "image", e.path)
		return nil
	}
	return explainLocked(ctx, e.f, e.path, err, o)
}

// idle asks for all evidence. An administrator's exception is the only thing that outweighs it.
func (e *existing) idle(ctx context.Context, o *Options) error {
	if loops := blockdev.LoopsOf(e.f); len(loops) > 0 {
		return fmt.Errorf("%s is %w: it is attached as %s (losetup -d detaches it)", e.path, ErrInUse, strings.Join(loops, ", "))
	}
	if o.Users == nil {
		return nil
	}
	uses, err := o.Users.InUse(ctx, e.f)
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", e.path, err)
	}
	uses = withoutLocks(uses)
	for _, u := range uses {
		if u.Role == guard.RoleBacking {
			o.Log.Warn("the image is a backing file: every overlay on it breaks when it changes", "image", e.path)
		}
	}
	if len(uses) == 0 || o.Users.Permitted(ctx, e.f) {
		return nil
	}
	return &InUseError{Path: e.path, Uses: uses, Hint: overwriteHint(e.path)}
}

func (e *existing) file() *os.File { return e.f }

func (e *existing) close() {
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
	f, openErr := openForReading(path)
	if openErr != nil {
		return fmt.Errorf("%w: %w", ErrInUse, wrapped)
	}
	defer f.Close()
	return explainLocked(ctx, f, path, fmt.Errorf("%w: %w", ErrInUse, wrapped), o)
}

// explainLocked turns "in use" into who uses it, if that can be found out.
func explainLocked(ctx context.Context, f *os.File, path string, err error, o *Options) error {
	if !errors.Is(err, ErrInUse) || o.Users == nil {
		return err
	}
	uses, usesErr := o.Users.InUse(ctx, f)
	if usesErr != nil || len(uses) == 0 {
		return fmt.Errorf("%w; %s", err, overwriteHint(path))
	}
	return &InUseError{Path: path, Uses: uses, Hint: overwriteHint(path)}
}

// openExisting is the target for a regular file that exists.
func openExisting(ctx context.Context, path string, src *source, o *Options) (target, error) {
	if o.Overwrite == Refuse {
		return nil, existsError(ctx, path, o)
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
	t, err := newFresh(path, e, src, o)
	if err != nil {
		e.close()
		return nil, err
	}
	return t, nil
}

// existsError says what is there, and whether somebody uses it: then --overwrite would not help.
func existsError(ctx context.Context, path string, o *Options) error {
	err := &ExistsError{Path: path, Next: NextFree(path)}
	if o.Users == nil {
		return err
	}
	f, openErr := openForReading(path)
	if openErr != nil {
		return err
	}
	defer f.Close()
	if uses, usesErr := o.Users.InUse(ctx, f); usesErr == nil {
		err.Uses = uses
	}
	return err
}
