// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"imgward/fs/mounttable"
	"imgward/guard"
)

// CheckTarget says what stands in the way of a view on o.Mountpoint, before anything is done. ErrIsView: one is there.
// ErrStale: one was there, and its daemon died.
func CheckTarget(o *Options) error {
	t, err := mounttable.Now()
	if err != nil {
		return err
	}
	if m := t.Topmost(o.Mountpoint); m != nil && strings.HasPrefix(m.FSType, "fuse") {
		if Dead(o.Mountpoint) {
			return fmt.Errorf("%s %w (umount -l %s, then try again)", o.Mountpoint, ErrStale, o.Mountpoint)
		}
		if m.FSType == FSType {
			return fmt.Errorf("%s %w", o.Mountpoint, ErrIsView)
		}
	}
	for _, dir := range []string{o.Mountpoint, o.Backing} {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return &os.PathError{Op: "mount", Path: dir, Err: syscall.ENOTDIR}
		}
	}
	if m := t.At(o.Mountpoint); m != nil && m.FSType == FSType {
		return fmt.Errorf("%s is inside the view on %s: what stands there goes through that view already", o.Mountpoint, m.Mountpoint)
	}
	if m := t.At(o.Backing); m != nil && m.FSType == FSType {
		return fmt.Errorf("%s %w: show the directory that it shows instead", o.Backing, ErrIsView)
	}
	if o.Backing != o.Mountpoint && guard.Within(o.Mountpoint, o.Backing) {
		return fmt.Errorf("%s is inside %s: a view cannot show the directory that it is in", o.Mountpoint, o.Backing)
	}
	if other := overlapping(t, o.Backing); other != nil {
		return fmt.Errorf("the files of %s are shown by the view on %s already, or some of them: neither view would know of the VMs of the other (imgward umount %s first)",
			o.Backing, other.Mountpoint, other.Mountpoint)
	}
	return nil
}

// part is what is below one directory of a file system.
type part struct {
	dev uint64
	dir string // from the file system's own root
}

// overlapping finds a view that shows some of the files below a directory, by whatever path: two views of one file do not
// see each other's handles, so what one refuses the other lets through.
func overlapping(t *mounttable.Table, backing string) *mounttable.Mount {
	own := partsBelow(t, backing)
	for _, m := range t.All() {
		if m.FSType != FSType {
			continue
		}
		for _, theirs := range partsBelow(t, m.Source) { // mountView makes its backing directory a view's source
			for _, ours := range own {
				if ours.dev == theirs.dev && (guard.Within(ours.dir, theirs.dir) || guard.Within(theirs.dir, ours.dir)) {
					return m
				}
			}
		}
	}
	return nil
}

// partsBelow lists what a backing tree at dir is made of: the directory itself, as it is below any view that stands on it,
// and the file systems mounted below it.
func partsBelow(t *mounttable.Table, dir string) []part {
	m := t.At(dir)
	for m != nil && m.FSType == FSType {
		m = t.Parent(m)
	}
	if m == nil {
		return nil
	}
	list := []part{{mounttable.Device(m), mounttable.Inside(m, dir)}}
	for _, sub := range t.All() {
		if sub.Mountpoint != dir && guard.Within(sub.Mountpoint, dir) && sub.FSType != FSType {
			list = append(list, part{mounttable.Device(sub), sub.Root})
		}
	}
	return list
}
