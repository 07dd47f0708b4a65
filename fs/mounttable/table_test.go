// SPDX-License-Identifier: Apache-2.0

package mounttable

import (
	"strings"
	"testing"
)

// Lines of /proc/self/mountinfo from Linux 6.18. 30 is a view in place over a file system of its own; 31 is mounted over
// it by a storage pool, 32 on a directory of it; 40 hides a view by its parent directory.
const table = `20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /var/lib/images rw - xfs /dev/sdb1 rw
30 21 0:50 / /var/lib/images rw - fuse.imgward /var/lib/images rw
32 30 8:3 / /var/lib/images/sub rw - xfs /dev/sdc1 rw
25 20 0:51 / /srv/a/view rw - fuse.imgward /srv/a/view rw
26 25 0:60 / /srv/a/view rw - tmpfs none rw
27 20 0:52 / /mnt/b/view rw - fuse.imgward /mnt/b/view rw
40 20 0:61 / /mnt/b rw - tmpfs none rw
`

func read(t *testing.T, text string) *Table {
	t.Helper()
	table, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestAt(t *testing.T) {
	table := read(t, table)
	for path, want := range map[string]int{
		"/": 20, "/var": 20, "/var/lib/images": 30, "/var/lib/images/a.img": 30, "/var/lib/images/sub": 32,
		"/var/lib/images/sub/b/c": 32, "/var/lib/images2": 20, "/srv/a/view/x": 26, "/mnt/b/view/x": 40,
	} {
		if m := table.At(path); m == nil || m.ID != want {
			t.Errorf("%s is on %+v, want mount %d", path, m, want)
		}
	}
}

func TestReachable(t *testing.T) {
	table := read(t, table)
	for dev, want := range map[uint64]int{50: 0, 51: 26, 52: 40} {
		m := table.Of(dev)[0]
		cover := table.Cover(m)
		if (cover == nil) != (want == 0) || cover != nil && cover.ID != want || table.Reachable(m) != (want == 0) {
			t.Errorf("%s: covered by %+v, want %d", m.Mountpoint, cover, want)
		}
	}
	on := table.On(table.Of(50)[0])
	if len(on) != 1 || on[0].ID != 32 {
		t.Errorf("on the view: %+v", on)
	}
}

// A mount namespace's root may have a parent that is not shown, or be stacked on another.
func TestRoot(t *testing.T) {
	stacked := read(t, "1 1 0:2 / / rw - rootfs rootfs rw\n20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 0:5 / /x rw - tmpfs t rw\n")
	if m := stacked.At("/x/y"); m == nil || m.ID != 21 {
		t.Errorf("got %+v", m)
	}
	chroot := read(t, "21 20 0:5 / /x rw - tmpfs t rw\n")
	if m := chroot.At("/x/y"); m == nil || m.ID != 21 {
		t.Errorf("in a chroot: %+v", m)
	}
	if m := chroot.At("/y"); m != nil {
		t.Errorf("in a chroot, on its hidden root: %+v", m)
	}
}
