// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
	"imgward/guard"
	"imgward/guard/layers"
)

// Overlap refuses a copy of an image onto itself: under another name, another device node, through a loop device, or
// onto a device that holds it or that it holds.
func Overlap(src *source.Source, name string, dst *unix.Stat_t) error {
	if src.Kind != source.Regular && src.Kind != source.Device {
		return nil
	}
	from, to := guard.StatID(&src.Stat), guard.StatID(dst)
	if from == to {
		return fmt.Errorf("%s and %s are the same image", src.Name, name)
	}
	for _, l := range (layers.Stack{}).Related(layers.ID(from)) {
		if l.ID == layers.ID(to) {
			return fmt.Errorf("%s and %s have bytes in common: the copy would overwrite what it reads", src.Name, name)
		}
	}
	return nil
}

// onSource refuses a new file on a file system that is on the device being copied: the copy would have to hold itself.
func onSource(src *source.Source, path string) error {
	var dir unix.Stat_t
	if src.Kind != source.Device || unix.Stat(filepath.Dir(path), &dir) != nil {
		return nil
	}
	below := layers.Stack{}.Below(layers.Device(dir.Dev))
	if dir.Dev != src.Stat.Rdev && !slices.ContainsFunc(below, func(l layers.Layer) bool { return l.ID == layers.Device(src.Stat.Rdev) }) {
		return nil
	}
	return fmt.Errorf("%s is on a file system on %s, which is the source: the copy would have to contain itself", path, src.Name)
}

// SameInode compares files; the nodes of one block device are several.
func SameInode(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
