// SPDX-License-Identifier: Apache-2.0

// Package blockdev says what a block device is, who holds it, and what is on it, before somebody overwrites it.
package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Info describes a block device as sysfs (Documentation/ABI/stable/sysfs-block) and its first bytes show it.
type Info struct {
	Name     string // the kernel's: sda, dm-3, loop0p1
	Model    string
	Serial   string
	Backing  string   // a loop device's file
	Holders  []string // devices stacked upon it or its partitions: dm-0, md127
	Mounts   []string // where it or its partitions are mounted, or "swap"
	Contents []string // "GPT partition table", "ext4 file system"; empty for nothing known
}

// Inspect describes the device behind f, which must be a block device open for reading.
func Inspect(f *os.File) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Info{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Info{}, fmt.Errorf("%s is no block device", f.Name())
	}
	i := describe("/sys", number(st.Rdev))
	contents, err := Signatures(f)
	i.Contents = contents
	return i, err
}

// Free returns an error that names what holds the device or has it mounted; nil if nothing does. O_EXCL at open is what
// keeps two users apart; this is for telling the person who the other one is.
func (i Info) Free() error {
	switch {
	case len(i.Mounts) > 0:
		return fmt.Errorf("it is mounted on %s", strings.Join(i.Mounts, ", "))
	case len(i.Holders) > 0:
		return fmt.Errorf("it is a part of %s", strings.Join(i.Holders, ", "))
	}
	return nil
}

// Held is Free for a device that is only to be read: nothing of its contents is looked at.
func Held(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return describe("/sys", number(st.Rdev)).Free()
}

// String is what is lost when the device is overwritten: model, serial, contents.
func (i Info) String() string {
	parts := []string{}
	for _, p := range []string{i.Model, prefix("serial ", i.Serial), prefix("backed by ", i.Backing)} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	contents := "no known contents"
	if len(i.Contents) > 0 {
		contents = strings.Join(i.Contents, " and ")
	}
	return strings.Join(append(parts, contents), ", ")
}

func prefix(p, s string) string {
	if s == "" {
		return ""
	}
	return p + s
}

func number(rdev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)) }

// describe reads sysfs below root for the device with that number, its disk and its partitions.
func describe(root, number string) Info {
	link := filepath.Join(root, "dev/block", number)
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return Info{}
	}
	i := Info{Name: filepath.Base(dir), Backing: line(dir, "loop/backing_file")}
	disk := dir
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk = filepath.Dir(dir)
	}
	if name := line(dir, "dm/name"); name != "" {
		i.Model = "device mapper " + name
	} else {
		i.Model = strings.TrimSpace(line(disk, "device/vendor") + " " + line(disk, "device/model"))
	}
	i.Serial = first(line(disk, "device/serial"), line(disk, "serial"), line(disk, "device/wwid"), line(disk, "wwid"))
	for _, d := range append([]string{dir}, partitions(dir)...) {
		i.Holders = append(i.Holders, names(filepath.Join(d, "holders"))...)
		i.Mounts = append(i.Mounts, mounts(line(d, "dev"), filepath.Base(d))...)
	}
	return i
}

// partitions are the directories of a disk's partitions.
func partitions(disk string) []string {
	found, _ := filepath.Glob(filepath.Join(disk, "*", "partition"))
	for i, p := range found {
		found[i] = filepath.Dir(p)
	}
	return found
}

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var n []string
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n
}

// line is the first line of a sysfs attribute; "" if there is none.
func line(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	l, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(l)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
