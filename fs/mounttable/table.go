// SPDX-License-Identifier: Apache-2.0

// Package mounttable reads the kernel's mount table and follows its changes. It asks the table alone, never a mount: that
// could wait for a daemon that does not answer.
package mounttable

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is one mount, with its id and its parent's.
type Mount = mountinfo.Info

// Table is the mount table of one mount namespace at one moment. It is not changed once it is made.
type Table struct {
	mounts []*Mount
	// over lists what is mounted on a mount, by its id, in the order of mounting.
	over map[int][]*Mount
	byID map[int]*Mount
	root *Mount
}

// Now reads the mount table of this process's namespace.
func Now() (*Table, error) {
	list, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return newTable(list), nil
}

// Parse takes a table in the form of /proc/PID/mountinfo.
func Parse(r io.Reader) (*Table, error) {
	list, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return newTable(list), nil
}

func newTable(list []*Mount) *Table {
	t := &Table{mounts: list, over: make(map[int][]*Mount), byID: make(map[int]*Mount, len(list))}
	for _, m := range list {
		t.byID[m.ID] = m
	}
	for _, m := range list {
		// The root's parent is not in the table, or is the root itself.
		switch {
		case m.ID != m.Parent && t.byID[m.Parent] != nil:
			t.over[m.Parent] = append(t.over[m.Parent], m)
		case m.Mountpoint == "/" && t.root == nil:
			t.root = m
		default:
			t.over[hiddenRoot] = append(t.over[hiddenRoot], m)
		}
	}
	if t.root == nil { // in a chroot(2) that is no mount point
		t.root = &Mount{ID: hiddenRoot, Mountpoint: "/"}
	}
	return t
}

// hiddenRoot stands for a root that the table does not show.
const hiddenRoot = -1

// All lists every mount, in the kernel's order.
func (t *Table) All() []*Mount { return t.mounts }

// At is the mount that an access to a path reaches: the kernel's own walk, from the root down, at each name into what is
// mounted there last. The path is absolute, clean and free of symbolic links. Nil: a mount that the table does not show (of a
// chroot).
func (t *Table) At(name string) *Mount {
	at := t.descend(t.root, "/")
	walked := ""
	for _, comp := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' }) {
		walked += "/" + comp
		at = t.descend(at, walked)
	}
	if at.ID == hiddenRoot {
		return nil
	}
	return at
}

// descend goes to the top of what is stacked on a mount at one mountpoint.
func (t *Table) descend(m *Mount, point string) *Mount {
	for {
		next := t.mountedAt(m, point)
		if next == nil {
			return m
		}
		m = next
	}
}

func (t *Table) mountedAt(m *Mount, point string) *Mount {
	for _, o := range t.over[m.ID] {
		if o.Mountpoint == point && o.ID != t.root.ID {
			return o
		}
	}
	return nil
}

// Topmost is what was mounted last of what stands on a directory, whether or not something above the directory hides it.
// Nil: the directory is not a mount point.
func (t *Table) Topmost(dir string) *Mount {
	for i := len(t.mounts) - 1; i >= 0; i-- {
		if t.mounts[i].Mountpoint == dir {
			return t.mounts[i]
		}
	}
	return nil
}

// Parent is the mount that a mount is mounted on; nil for the root.
func (t *Table) Parent(m *Mount) *Mount {
	if m.ID == m.Parent {
		return nil
	}
	return t.byID[m.Parent]
}

// Reachable says whether an access to a mount's own mountpoint reaches it: nothing covers it, or a directory above it.
func (t *Table) Reachable(m *Mount) bool {
	at := t.At(m.Mountpoint)
	return at != nil && at.ID == m.ID
}

// Cover is what an access to a mount's mountpoint reaches instead of it; nil if nothing covers it.
func (t *Table) Cover(m *Mount) *Mount {
	if at := t.At(m.Mountpoint); at != nil && at.ID != m.ID {
		return at
	}
	return nil
}

// On lists what is mounted directly on directories of a mount below its root.
func (t *Table) On(m *Mount) []*Mount {
	var list []*Mount
	for _, o := range t.over[m.ID] {
		if o.Mountpoint != m.Mountpoint {
			list = append(list, o)
		}
	}
	return list
}

// Of lists the mounts of a file system, by its device, whole ones first.
func (t *Table) Of(dev uint64) []*Mount {
	var whole, parts []*Mount
	for _, m := range t.mounts {
		switch {
		case Device(m) != dev:
		case m.Root == "/":
			whole = append(whole, m)
		default:
			parts = append(parts, m)
		}
	}
	return append(whole, parts...)
}

// Find is where a file system with this device is mounted whole: at home if it is there, else where it can be reached, else
// anywhere. Nil: nowhere in this namespace.
func (t *Table) Find(dev uint64, home string) *Mount {
	var best *Mount
	rank := 0
	for _, m := range t.Of(dev) {
		r := 1
		switch {
		case m.Root != "/":
			continue
		case m.Mountpoint == home:
			r = 3
		case t.Reachable(m):
			r = 2
		}
		if r > rank {
			best, rank = m, r
		}
	}
	return best
}

// Device is the st_dev of what is mounted.
func Device(m *Mount) uint64 { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) }

// ReadOnly says whether nothing can be written through a mount.
func ReadOnly(m *Mount) bool { return slices.Contains(strings.Split(m.Options, ","), "ro") }

// Inside is where a path is on the file system of the mount that it is on: comparable between mounts of one file system.
func Inside(m *Mount, name string) string {
	return path.Join(m.Root, strings.TrimPrefix(name, m.Mountpoint))
}
