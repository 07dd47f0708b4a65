// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// host is a sysfs of a test's own. Sizes and starts are in sectors, as there:
//
//	sda 8:0 (1000): sda1 8:1 (100..300), sda2 8:2 (300..900), which is an LVM physical volume
//	dm-0, dm-1 254:0, 254:1: logical volumes on sda2; loop2 7:2 shows dm-1
//	sdb 8:16 and sdc 8:32: md0 9:0, with a partition md0p1 259:0
//	loop0 7:0 shows file 10 from byte 512 on, partition loop0p1 259:1 (1..11); loop1 7:1 shows its sectors 21 to 30
//	sdd 8:48 is behind bcache0 252:0, sde 8:64 is its cache; cciss!c0d0 104:0 stands alone
const host = `
sda/dev 8:0
sda/size 1000
sda/sda1/dev 8:1
sda/sda1/partition 1
sda/sda1/start 100
sda/sda1/size 200
sda/sda2/dev 8:2
sda/sda2/partition 2
sda/sda2/start 300
sda/sda2/size 600
dm-0/dev 254:0
dm-0/size 100
dm-0/slaves/sda2 -> sda/sda2
sda/sda2/holders/dm-0 -> dm-0
dm-1/dev 254:1
dm-1/size 100
dm-1/slaves/sda2 -> sda/sda2
sda/sda2/holders/dm-1 -> dm-1
loop2/dev 7:2
loop2/size 100
loop2/loop/backing_file /dev/mapper/vg-one
loop2/loop/offset 0
sdb/dev 8:16
sdb/size 500
sdb/holders/md0 -> md0
sdc/dev 8:32
sdc/size 500
sdc/holders/md0 -> md0
md0/dev 9:0
md0/size 498
md0/slaves/sdb -> sdb
md0/slaves/sdc -> sdc
md0/md0p1/dev 259:0
md0/md0p1/partition 1
md0/md0p1/start 8
md0/md0p1/size 400
loop0/dev 7:0
loop0/size 100
loop0/loop/backing_file /images/a.img
loop0/loop/offset 512
loop0/loop0p1/dev 259:1
loop0/loop0p1/partition 1
loop0/loop0p1/start 1
loop0/loop0p1/size 10
loop1/dev 7:1
loop1/size 10
loop1/loop/backing_file /images/link to a.img
loop1/loop/offset 10752
loop3/dev 7:3
loop3/size 10
loop3/loop/backing_file /images/gone.img (deleted)
loop3/loop/offset 0
loop4/dev 7:4
sdd/dev 8:48
sdd/size 100
sdd/holders/bcache0 -> bcache0
sde/dev 8:64
sde/size 100
sde/holders/bcache0 -> bcache0
bcache0/dev 252:0
bcache0/size 90
bcache0/slaves/sdd -> sdd
bcache0/slaves/sde -> sde
cciss!c0d0/dev 104:0
cciss!c0d0/size 10`

// build makes that sysfs and returns a stack that looks there, with the devices by name.
func build(t *testing.T) (Stack, map[string]ID) {
	t.Helper()
	root, ids := t.TempDir(), map[string]ID{"a.img": {1, 10}}
	put := func(name string, make func(path string) error) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range strings.Split(strings.TrimSpace(host), "\n") {
		if name, to, ok := strings.Cut(l, " -> "); ok {
			put("devices/"+name, func(path string) error { return os.Symlink(filepath.Join(root, "devices", to), path) })
			continue
		}
		name, value, _ := strings.Cut(l, " ")
		put("devices/"+name, func(path string) error { return os.WriteFile(path, []byte(value+"\n"), 0o644) })
		if filepath.Base(name) != "dev" {
			continue
		}
		dir := filepath.Dir(name)
		link := func(path string) error { return os.Symlink(filepath.Join(root, "devices", dir), path) }
		put("dev/block/"+value, link)
		if !strings.Contains(dir, "/") {
			put("block/"+dir, link)
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(value, "%d:%d", &major, &minor); err != nil {
			t.Fatal(err)
		}
		ids[filepath.Base(dir)] = Device(unix.Mkdev(major, minor))
	}
	leads := map[string]ID{"/images/a.img": ids["a.img"], "/images/link to a.img": ids["a.img"], "/dev/mapper/vg-one": ids["dm-1"]}
	return Stack{Sys: root, Lookup: func(path string) (ID, error) {
		if id, ok := leads[path]; ok {
			return id, nil
		}
		return ID{}, os.ErrNotExist
	}}, ids
}

func TestRelated(t *testing.T) {
	s, ids := build(t)
	for _, c := range []struct{ of, want string }{
		{"sda", "/dev/sda1 /dev/sda2 /dev/dm-0 /dev/dm-1 /dev/loop2"},
		{"sda1", "/dev/sda"},
		{"sda2", "/dev/sda /dev/dm-0 /dev/dm-1 /dev/loop2"},
		{"dm-0", "/dev/sda2 /dev/sda"}, // the other volume is another part of sda2
		{"dm-1", "/dev/sda2 /dev/sda /dev/loop2"},
		{"loop2", "/dev/mapper/vg-one /dev/sda2 /dev/sda"},
		{"md0p1", "/dev/md0 /dev/sdb /dev/sdc"},
		{"sdc", "/dev/md0 /dev/md0p1"},
		{"bcache0", "/dev/sdd /dev/sde"},
		{"sde", "/dev/bcache0"},
		{"a.img", "/dev/loop0 /dev/loop0p1 /dev/loop1"},
		{"loop0", "/images/a.img /dev/loop1 /dev/loop0p1"},
		{"loop0p1", "/dev/loop0 /images/a.img"}, // loop1 begins after it
		{"loop1", "/images/link to a.img /dev/loop0"},
		{"loop3", "/images/gone.img (deleted)"},
		{"loop4", ""},
		{"c0d0", ""},
	} {
		id, ok := ids[c.of]
		if !ok {
			id = ids["cciss!"+c.of]
		}
		if got := paths(s.Related(id)); got != c.want {
			t.Errorf("related to %s: %s\nwant %s", c.of, got, c.want)
		}
	}
	if got := paths(s.Below(ids["md0p1"])); got != "/dev/md0 /dev/sdb /dev/sdc" {
		t.Errorf("below md0p1: %s", got)
	}
	if got := paths(s.Above(ids["loop0p1"])); got != "" {
		t.Errorf("above loop0p1: %s", got)
	}
}

func paths(list []Layer) string {
	var p []string
	for _, l := range list {
		p = append(p, l.Path)
	}
	return strings.Join(p, " ")
}

// TestRanges: which bytes of the layers are common.
func TestRanges(t *testing.T) {
	s, ids := build(t)
	parts := func(list []Layer) map[string]Range {
		m := map[string]Range{}
		for _, l := range list {
			if l.Exact {
				m[l.Path] = l.Part
			}
		}
		return m
	}
	for of, want := range map[string]map[string]Range{
		"loop0p1": {"/dev/loop0": {512, 5120}, "/images/a.img": {1024, 5120}},
		"loop1":   {"/images/link to a.img": {10752, 5120}, "/dev/loop0": {10240, 5120}},
		"sda2":    {"/dev/sda": {300 * 512, 600 * 512}},
		"md0p1":   {"/dev/md0": {8 * 512, 400 * 512}}, // where on sdb and sdc is MD's secret
	} {
		if got := parts(s.Related(ids[of])); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", of, got, want)
		}
	}
}

// TestLoopsRemember: the path of what a loop device shows is followed once, and again when it shows something else.
func TestLoopsRemember(t *testing.T) {
	need.Have(t, need.Root, need.Mounting, need.Loops)
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, file := range []string{one, two} {
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var loops Loops
	followed := 0
	s := Stack{Loops: &loops, Lookup: func(path string) (ID, error) {
		if filepath.Dir(path) == dir {
			followed++
		}
		return stat(path)
	}}
	above := func(file string) string {
		t.Helper()
		id, err := stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return paths(s.Above(id))
	}
	if got := above(one); got != "" {
		t.Fatalf("nothing shows it, and above it is %q", got)
	}
	disk := attach(t, one)
	for range 3 {
		if got := above(one); got != disk {
			t.Fatalf("above is %q, want %q", got, disk)
		}
	}
	if _, err := os.Stat("/sys/block/" + filepath.Base(disk) + "/diskseq"); err == nil && followed > 2 { // a second may pass
		t.Errorf("the path was followed %d times for three questions", followed)
	}
	run(t, "losetup", "--detach", disk)
	run(t, "losetup", disk, two)
	if got := above(one); got != "" {
		t.Errorf("above the first file is %q, and nothing shows it any more", got)
	}
	if got := above(two); got != disk {
		t.Errorf("above the second file is %q, want %q", got, disk)
	}
}

// TestHost: a real loop device with two partitions, and a second loop device over a part of the first one's second.
func TestHost(t *testing.T) {
	need.Have(t, need.Root, need.Mounting, need.Loops)
	file := filepath.Join(t.TempDir(), "disk image")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := attach(t, "--partscan", file)
	run(t, "addpart", disk, "1", "2048", "2048") // by hand, for not every kernel reads partition tables
	run(t, "addpart", disk, "2", "4096", "2048")
	over := attach(t, "--offset", "2097152", "--sizelimit", "1048576", file)
	want := map[string][]string{
		file:        {disk, disk + "p1", disk + "p2", over},
		disk:        {file, over, disk + "p1", disk + "p2"},
		disk + "p1": {disk, file},
		disk + "p2": {disk, file, over},
		over:        {file, disk, disk + "p2"},
	}
	for of, related := range want {
		id, err := stat(of)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range (Stack{}).Related(id) {
			got = append(got, l.Path)
		}
		slices.Sort(got)
		slices.Sort(related)
		if !slices.Equal(got, related) {
			t.Errorf("related to %s: %q, want %q", of, got, related)
		}
	}
}

func attach(t *testing.T, args ...string) string {
	t.Helper()
	dev := run(t, append([]string{"losetup", "--find", "--show"}, args...)...)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
