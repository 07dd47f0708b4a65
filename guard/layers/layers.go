// SPDX-License-Identifier: Apache-2.0

// Package layers knows what lies above and below a block device or an image file: the disk of a partition, the file of a
// loop device, the devices that a device-mapper, MD or bcache device is made of, and all of it the other way round. Who
// writes to one of them changes the others.
//
// It reads sysfs (Documentation/ABI/stable/sysfs-block, testing/sysfs-block-loop) and opens nothing.
package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ID is what a file or block device is, whatever its names: as guard.ID, which a block device is in with BlockDevice and
// its number.
type ID struct{ Dev, Ino uint64 }

// BlockDevice is the Dev of an ID that is a block device. No file system has this device number.
const BlockDevice = ^uint64(0)

// Device is the ID of the block device with a number as stat(2) has it.
func Device(number uint64) ID { return ID{BlockDevice, number} }

// IsDevice tells block devices from files.
func (id ID) IsDevice() bool { return id.Dev == BlockDevice }

// Range is the bytes [Off, Off+Len).
type Range struct{ Off, Len int64 }

func (r Range) cut(o Range) (Range, bool) {
	from, to := max(r.Off, o.Off), min(r.Off+r.Len, o.Off+o.Len)
	return Range{from, to - from}, from < to
}

// Layer is a file or block device that has bytes in common with another.
type Layer struct {
	ID ID // zero for a loop device's file that nothing leads to any more
	// Path is /dev/NAME with the kernel's name of a device, or the path of a file as the loop driver has it.
	Path string
	// Part is where in this layer the common bytes are. Of the devices that a mapped one (device-mapper, MD) is made of
	// sysfs tells no more than which they are: then Part is around them and Exact is false.
	Part  Range
	Exact bool
}

// Stack looks into the stack of block devices. The zero value is this host's.
type Stack struct {
	// Sys is where sysfs is mounted; "" for /sys.
	Sys string
	// Lookup says what the path of a loop device's file leads to; nil: stat(2). It may fail.
	Lookup func(path string) (ID, error)
	// Loops saves look-ups where many questions are asked; nil: every one looks for itself.
	Loops *Loops

	loops []loop // nil: not looked for yet
}

// Once is the stack with the loop devices as they are now, for many questions about one moment.
func (s Stack) Once() Stack {
	w := s.walk(ID{})
	w.attached()
	return w.Stack
}

// Related lists every layer below and above id, itself left out, that has bytes in common with it, nearest first. Two
// partitions of a disk have none; nor have two logical volumes, as far as sysfs tells.
func (s Stack) Related(id ID) []Layer {
	w := s.walk(id)
	w.down(w.found[0])
	w.up(w.found[0])
	return w.found[1:]
}

// Above lists the layers above id: what shows some of its bytes under another name.
func (s Stack) Above(id ID) []Layer {
	w := s.walk(id)
	w.up(w.found[0])
	return w.found[1:]
}

// Below lists the layers below id: what its bytes are kept in.
func (s Stack) Below(id ID) []Layer {
	w := s.walk(id)
	w.downOnly = true
	w.down(w.found[0])
	return w.found[1:]
}

// Btrfs lists the devices of the mounted btrfs with a UUID, and the layers below each. "": none.
func (s Stack) Btrfs(uuid string) []Layer {
	if uuid == "" {
		return nil
	}
	w := s.walk(ID{})
	w.downOnly = true
	devices := filepath.Join(w.Sys, "fs/btrfs", uuid, "devices")
	for _, name := range names(devices) {
		dir, err := filepath.EvalSymlinks(filepath.Join(devices, name))
		if err != nil {
			continue
		}
		if l := device(dir, Range{0, sectors(dir, "size")}, false); w.add(l) {
			w.down(l)
		}
	}
	return w.found[1:]
}

func (s Stack) walk(id ID) *walk {
	if s.Sys == "" {
		s.Sys = "/sys"
	}
	if s.Lookup == nil {
		s.Lookup = stat
	}
	w := &walk{Stack: s}
	w.found = []Layer{{ID: id, Part: Range{0, w.size(id)}, Exact: true}}
	return w
}

func stat(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return Device(st.Rdev), nil
	}
	return ID{st.Dev, st.Ino}, nil
}

// dir is a device's directory in sysfs; "" if there is none.
func (s Stack) dir(id ID) string {
	if !id.IsDevice() {
		return ""
	}
	number := fmt.Sprintf("%d:%d", unix.Major(id.Ino), unix.Minor(id.Ino))
	dir, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "dev/block", number))
	if err != nil {
		return ""
	}
	return dir
}

// everything is the size of what no size is known of.
const everything = 1<<63 - 1

func (s Stack) size(id ID) int64 {
	if dir := s.dir(id); dir != "" {
		return sectors(dir, "size")
	}
	return everything
}

// device is the layer of a directory in sysfs.
func device(dir string, part Range, exact bool) Layer {
	var major, minor uint32
	_, _ = fmt.Sscanf(line(dir, "dev"), "%d:%d", &major, &minor)
	return Layer{
		ID: Device(unix.Mkdev(major, minor)), Path: "/dev/" + strings.ReplaceAll(filepath.Base(dir), "!", "/"),
		Part: part, Exact: exact,
	}
}

// line is the first line of an attribute; "" if there is none. An attribute is a page at most and comes in one read; with
// many loop devices the calls that os.ReadFile makes besides were a third of the time of a small copy.
func line(dir, name string) string {
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [4096]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return ""
	}
	l, _, _ := strings.Cut(string(b[:n]), "\n")
	return l
}

func number(dir, name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(line(dir, name)), 10, 64)
	return n
}

// sectors is an attribute in bytes; the kernel counts in sectors of 512, whatever the device's are.
func sectors(dir, name string) int64 { return number(dir, name) * 512 }

func has(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// names are the entries of a directory in sysfs.
func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
