// SPDX-License-Identifier: Apache-2.0

package imgcopy

import "errors"

// The ways in which a copy fails that scripts distinguish; test with errors.Is. Others are source.ErrInUse,
// dest.ErrExists and move.ErrNoSpace. Everything else is a plain failure.
var (
	// ErrVerify: what was read back is not what was written, or not what the manifest says.
	ErrVerify = errors.New("verification failed")
	// ErrIncomplete: the copy was published, but parts of the source could not be read (Options.OnError).
	ErrIncomplete = errors.New("source partly unreadable")
)
