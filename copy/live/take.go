package live

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// A view has no FICLONE: there copy_file_range clones, if its backing file system can, which it says. Another FUSE file
// system may copy the bytes, and would keep machines suspended for minutes: it is tried while everything still runs,
// and judged by its speed.
const (
	patience  = 50 * time.Millisecond // a machine may stand still for so long, cloned or copied
	cloneRate = 8 << 30               // bytes per second; a clone reaches a hundred times that, a copy a third
)

var errCopies = errors.New("the file system copies instead of cloning")

// rehearse takes a clone that will not be used. Dirty pages are written back before, for the time that takes says
// nothing about the clone, and is the machine's if it comes while that stands still.
func (c *clone) rehearse(ctx context.Context, src *os.File) error {
	if err := src.Sync(); err != nil {
		return err
	}
	if onFUSE(src) {
		if yes, known := sys.Reflinks(src); known && !yes {
			return errCopies
		} else if known {
			return nil
		}
	}
	begun := time.Now()
	return c.take(ctx, src, func(done int64) error {
		if d := time.Since(begun); d > patience && float64(done)/d.Seconds() < cloneRate {
			return errCopies
		}
		return nil
	})
}

// take makes c the clone of src as it is now, size and all. passed is asked after each part of one that takes several
// calls.
func (c *clone) take(ctx context.Context, src *os.File, passed func(done int64) error) error {
	err := sys.Clone(c.f, src)
	if err == nil || !sys.Unsupported(err) || !onFUSE(src) {
		return err
	}
	st, statErr := src.Stat()
	if statErr != nil {
		return statErr
	}
	if err := c.f.Truncate(st.Size()); err != nil {
		return err
	}
	part := int64(64 << 20) // at first; what is slow is to show soon
	for off := int64(0); off < st.Size(); part = st.Size() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		done, copyErr := sys.CopyRange(c.f, src, off, min(part, st.Size()-off))
		if copyErr != nil || done == 0 {
			return errors.Join(err, copyErr)
		}
		off += done
		if err := passed(off); err != nil {
			return err
		}
	}
	return nil
}

// atOnce lets every part pass: the clone has been rehearsed, and the guardian has an eye on the time.
func atOnce(int64) error { return nil }

func onFUSE(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}
