// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"

	"imgward/copy/dest"
	"imgward/copy/move"
)

// renaming is for an image that was made for this copy alone, in the directory of its final name: a clone of a suspended
// domain's disk, or what libvirt's backup job wrote. It needs no more than that name.
var renaming = strategy{method: move.MethodRename, excluded: noRename, run: rename}

func noRename(c *copier) string {
	if dest.Whole(c.dst) {
		return ""
	}
	return "the image was not made for this copy"
}

func rename(_ context.Context, c *copier, _ int64) (int64, string, error) {
	c.moved(move.Step{Len: c.src.Size, Method: move.MethodRename})
	return c.src.Size, "", nil
}
