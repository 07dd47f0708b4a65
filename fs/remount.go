// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"strings"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
)

// Remount changes flags of a view that is mounted; those that are not named stay. EBUSY: files are open for writing, and it
// was to be read-only.
func Remount(m *mounttable.Mount, flags []string) error {
	var bits uintptr = unix.MS_REMOUNT
	for _, name := range append(strings.Split(m.Options, ","), flags...) {
		f := flagBits[name]
		if f.off {
			bits &^= f.bit
		} else {
			bits |= f.bit
		}
	}
	return unix.Mount("", m.Mountpoint, "", bits, "")
}
