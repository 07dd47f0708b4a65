// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// goneSuffix marks, beside the runtime directories, the views that ended and nobody said that they should.
const goneSuffix = ".gone"

// NoteGone remembers that a view ended without `imgward umount`, until it is mounted again or Forget is called.
func NoteGone(mountpoint string) error {
	return WriteWhole(Dir(mountpoint)+goneSuffix, mountpoint)
}

// Forget says whether a view was remembered as gone, and forgets it.
func Forget(mountpoint string) bool { return os.Remove(Dir(mountpoint)+goneSuffix) == nil }

// Missing lists the views that ought to be there and are not: those that ended unasked, and those whose keeper was killed.
func Missing() ([]string, error) {
	entries, t, err := look()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		path := filepath.Join(RunDir, e.Name())
		if e.IsDir() {
			if _, ok := placeOf(path, t); ok || locked(path) {
				continue
			}
			path = filepath.Join(path, mountpointFile)
		} else if !strings.HasSuffix(path, goneSuffix) {
			continue
		}
		// What is no directory is the second layer's.
		if name, err := os.ReadFile(path); err == nil && filepath.IsAbs(string(name)) && !slices.Contains(list, string(name)) {
			list = append(list, string(name))
		}
	}
	return list, nil
}
