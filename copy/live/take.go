package live

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// A view has no FICLONE: there copy_file_range clones, if its backing file system can. One that cannot copies the bytes,
// and would keep machines suspended for minutes; it is told by the time that the first part takes.
const (
	probeLen = 64 << 20
	probeMax = 50 * time.Millisecond
)

var errCopies = errors.New("the file system copies instead of cloning")

// take makes c the clone of src as it is now, size and all.
func (c *clone) take(ctx context.Context, src *os.File) error {
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
	for off, n := int64(0), int64(probeLen); off < st.Size(); n = st.Size() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		begun := time.Now()
		done, copyErr := sys.CopyRange(c.f, src, off, min(n, st.Size()-off))
		if copyErr != nil || done == 0 {
			return errors.Join(err, copyErr)
		}
		if time.Since(begun) > probeMax*time.Duration(1+done/probeLen) {
			return errCopies
		}
		off += done
	}
	return nil
}

func onFUSE(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}
