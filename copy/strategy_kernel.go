// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"

	"imgward/copy/move"
	"imgward/copy/source"
)

// cloning shares the source's blocks.
var cloning = strategy{
	method: move.MethodClone, excluded: noClone,
	try: func(c *copier, from int64) string { return c.inKernel().TryClone(from) },
	run: func(ctx context.Context, c *copier, from int64) (int64, string, error) {
		return c.inKernel().Clone(ctx, from)
	},
}

// kernelCopying leaves it to whoever is behind the kernel.
var kernelCopying = strategy{
	method: move.MethodKernel, excluded: noKernelCopy,
	try: func(c *copier, from int64) string { return c.inKernel().TryCopyRange(from) },
	run: func(ctx context.Context, c *copier, from int64) (int64, string, error) {
		return c.inKernel().CopyRanges(ctx, from)
	},
}

func (c *copier) inKernel() *move.InKernel {
	return &move.InKernel{Dst: c.dst.File(), Src: c.src.File, Size: c.src.Size, Moved: c.moved, Limit: c.opts.Limit}
}

// noClone says why there can be no clone, from what the options say and the files are.
func noClone(c *copier) string {
	switch {
	case c.opts.Reflink == Never:
		return "--reflink=never"
	case c.opts.Preallocate:
		return "blocks of its own were asked for (--preallocate)"
	case c.src.Kind != source.Regular:
		return "the source is not a file"
	case c.dst.File() == nil || !move.IsRegular(c.dst.File()):
		return "the destination is not a file"
	}
	return ""
}

func noKernelCopy(c *copier) string {
	if why := noClone(c); why != "" {
		return why
	}
	if !move.ServerCopies(c.dst.File()) {
		return "nobody behind the kernel copies"
	}
	return ""
}
