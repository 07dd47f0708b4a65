// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net/http"

	"imgward/guard"
)

// Events of a view in the mount table. Change is "began" or "ended", Reason a sentence about it, Source what covers the view,
// Path (relative to the view) where something has been mounted below it.
const (
	EventViewCovered guard.EventType = "view-covered" // something was mounted over the view, or over a directory above it
	EventViewGone    guard.EventType = "view-gone"    // the view was unmounted, and not by imgward umount
	EventViewMoved   guard.EventType = "view-moved"   // mount --move; Source is where to
	EventMountBelow  guard.EventType = "mount-below"  // a file system was mounted below the view; "taken-in": and is part of it now
)

// ending tells the daemon that its view is about to be unmounted on purpose.
func (s *Server) ending(http.ResponseWriter, *http.Request) { s.Ending() }

// Ending tells the daemon that its view is about to be unmounted on purpose.
func (c *Client) Ending(ctx context.Context) error {
	return c.Post(ctx, "ending", struct{}{}, func([]byte) error { return nil })
}
