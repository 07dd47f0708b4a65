// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"os"

	"imgward/guard"
)

// Live makes an image that running domains write to readable as it was at one point in time. Package live has the ways.
type Live interface {
	// Snapshot returns when the image can be read consistently. It may stop the domains for a moment, and must see to
	// it that they go on even if this process is killed meanwhile.
	Snapshot(ctx context.Context, image LiveImage) (*Snapshot, error)
}

// Planner is a Live that knows what speaks against it.
type Planner interface {
	// Plan fails where Snapshot would before it does anything to a domain, and leaves nothing.
	Plan(ctx context.Context, image LiveImage) error
}

// LiveImage is an image in use.
type LiveImage struct {
	File   *os.File    // open for reading
	Path   string      // absolute, no symbolic link at its end
	Uses   []guard.Use // by writers; empty if only their locks are known
	Target string      // the file that the copy will be, absolute; "" if it will be none
}

// Snapshot is an image at one point in time.
type Snapshot struct {
	// File holds the image; it may be the very file that was asked for.
	File *os.File
	// Name is the name of File if it was made in the target's directory for this copy alone, so that it may become the
	// copy by being renamed; empty otherwise.
	Name string
	// Unnamed says that File was made for this copy alone, on the target's file system and without a name, so that it
	// may become the copy by being given one.
	Unnamed bool
	// Close gives up what the snapshot holds, File included if it is its own. A name that has become the copy's is no longer its own.
	Close func() error
}
