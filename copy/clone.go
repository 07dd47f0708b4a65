package imgcopy

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// cloning shares the source's blocks (FICLONERANGE), where both are files of one file system with reflinks.
var cloning = rung{method: MethodClone, unfit: noClone, rehearse: rehearseClone, climb: clone}

// cloneStep bounds one call: it cannot be interrupted, and takes seconds where an image has a million extents.
const cloneStep = 4 << 30

// noClone says why there can be no clone, from what the options say and the files are.
func noClone(c *copier) string {
	switch {
	case c.opts.Reflink == Never:
		return "--reflink=never"
	case c.opts.Preallocate:
		return "blocks of its own were asked for (--preallocate)"
	case c.src.kind != regular:
		return "the source is not a file"
	case c.dst.file() == nil || !isRegular(c.dst.file()):
		return "the destination is not a file"
	}
	return ""
}

func clone(ctx context.Context, c *copier, from int64) (int64, string, error) {
	for from < c.src.size {
		if ctx.Err() != nil {
			return from, "", context.Cause(ctx)
		}
		n := min(cloneStep, c.src.size-from)
		err := sys.CloneRange(c.dst.file(), c.src.f, from, n)
		if err != nil {
			return from, cloneProblem(err), ignoreUnsupported(err)
		}
		c.moved(Step{Off: from, Len: n, Method: MethodClone})
		from += n
	}
	return from, "", nil
}

// cloneProblem says what ioctl_ficlonerange(2)'s errors mean.
func cloneProblem(err error) string {
	switch {
	case errors.Is(err, unix.EXDEV):
		return "source and destination are on different file systems"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return "the file system has none"
	case errors.Is(err, unix.EINVAL):
		return "the file system cannot share between these two files"
	}
	return err.Error()
}
