// SPDX-License-Identifier: Apache-2.0

package source

import "log/slog"

// Options are whom a copy asks about the images at its two ends, and where it logs.
type Options struct {
	Users Users
	Locks Locks
	Alone bool // an image that needs other files (a backing file) is meant to be copied without them
	Live  Live // nil: a source in use is refused
	Log   *slog.Logger
}
