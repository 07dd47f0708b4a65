// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// cloneStep bounds one call: it cannot be interrupted, and takes seconds where an image has a million extents.
const cloneStep = 4 << 30

// Clone shares the source's blocks from an offset on (FICLONERANGE), where both are files of one file system with
// reflinks. Coming less far than the end is no error: why says what kept it.
func (k *InKernel) Clone(ctx context.Context, from int64) (reached int64, why string, err error) {
	for from < k.Size {
		if ctx.Err() != nil {
			return from, "", context.Cause(ctx)
		}
		if hole := k.holeFrom(from); hole > 0 {
			k.Moved(Step{Off: from, Len: hole, Method: MethodHole})
			from += hole
			continue
		}
		n := min(cloneStep, k.Size-from)
		if err := sys.CloneRange(k.Dst, k.Src, from, n); err != nil {
			return from, cloneProblem(err), ignoreUnsupported(err)
		}
		k.Moved(Step{Off: from, Len: n, Method: MethodClone})
		from += n
	}
	return from, "", nil
}

// holeFrom is the length of a hole at from, if whole steps fit into it: there is nothing to share in an image of exabytes, and
// blocks that are reserved in a smaller hole are.
func (k *InKernel) holeFrom(from int64) int64 {
	data, ok, err := sys.NextData(k.Src, from)
	switch {
	case err != nil:
		return 0
	case !ok:
		data = k.Size
	}
	if hole := min(data, k.Size) - from; hole > cloneStep {
		return hole / cloneStep * cloneStep
	}
	return 0
}

// cloneProbe is a multiple of every block size in use.
const cloneProbe = 64 << 10

// TryClone shares the first block from an offset on, and says why that is not possible.
func (k *InKernel) TryClone(from int64) string {
	if k.Size == from {
		return ""
	}
	if err := sys.CloneRange(k.Dst, k.Src, from, min(cloneProbe, k.Size-from)); err != nil {
		return cloneProblem(err)
	}
	return ""
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
