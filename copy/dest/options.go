// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"

	"imgward/copy/source"
)

// Overwrite says what may happen to an existing destination that nobody uses.
type Overwrite string

// The ways to treat an existing destination.
const (
	// Refuse leaves it alone: ErrExists.
	Refuse Overwrite = ""
	// Replace writes a new file and renames it over the old one, which stays whole until then. The new file takes
	// over owner, mode and ACL. Hard links keep the old contents. Devices are written in place.
	Replace Overwrite = "replace"
	// InPlace writes into the same inode: hard links and open descriptors see the new contents, no second image's
	// worth of space is needed, and an interruption leaves half an image.
	InPlace Overwrite = "in-place"
)

// Options are the choices about a destination.
type Options struct {
	source.Options
	Overwrite   Overwrite
	Preallocate bool   // reserve every block first, holes too
	Resume      bool   // go on with an earlier copy, and leave one to go on with
	StateDir    string // for the state of resumable copies to block devices
	// Confirm is asked before a block device is overwritten; what says what will be lost. An error stops the copy.
	Confirm func(ctx context.Context, what string) error
}
