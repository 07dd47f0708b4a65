// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"os"

	"imgward/guard"
)

// Users knows who uses an image. It is how the copy asks the guard.
type Users interface {
	// InUse lists the reasons why the inode behind f is in use by somebody else than this process; none means that it
	// is idle. Evidence that cannot be read (an unprivileged caller) is left out, not an error; an error means that
	// nothing could be found out, and the copy does not go ahead.
	InUse(ctx context.Context, f *os.File) ([]guard.Use, error)
	// Permitted reports whether an administrator's exception (imgward allow) lets an image in use be overwritten.
	Permitted(ctx context.Context, f *os.File) bool
}

// Locks takes QEMU's image locks: OFD locks on bytes 100–199 and 200–299, so that neither QEMU nor another imgcp opens
// an image that is being written, and nobody writes one that is being read.
type Locks interface {
	// Write locks f for writing, alone. Another holder is an error that is ErrInUse; a file system without locks is
	// no error, and release does nothing.
	Write(f *os.File) (release func(), err error)
	// Read keeps writers out of f while it is read.
	Read(f *os.File) (release func(), err error)
}

// writable picks the uses that change an image under a reader.
func writable(uses []guard.Use) []guard.Use {
	var w []guard.Use
	for _, u := range uses {
		if u.Writable {
			w = append(w, u)
		}
	}
	return w
}

// WithoutLocks leaves out the evidence from QEMU's image locks on the image itself: once this process holds them for
// writing, nobody else does, and what F_OFD_GETLK shows are its own.
func WithoutLocks(uses []guard.Use) []guard.Use {
	var rest []guard.Use
	for _, u := range uses {
		if u.Evidence != guard.EvidenceLock || u.Layer != "" {
			rest = append(rest, u)
		}
	}
	return rest
}
