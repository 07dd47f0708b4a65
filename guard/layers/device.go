// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Exists says whether the kernel has this block device.
func (s Stack) Exists(id ID) bool { return s.walk(id).dir(id) != "" }

// Writable says whether a block device has contents that somebody could write to.
func (s Stack) Writable(id ID) bool {
	dir := s.walk(id).dir(id)
	return dir != "" && number(dir, "ro") == 0 && number(dir, "size") > 0
}

// Partitioned says whether the kernel knows partitions of a block device.
func (s Stack) Partitioned(id ID) bool {
	dir := s.walk(id).dir(id)
	return dir != "" && len(partitions(dir)) > 0
}

// Disk is the disk that a partition is of; false if it is none.
func (s Stack) Disk(id ID) (ID, bool) {
	w := s.walk(id)
	if dir := w.dir(id); dir == "" || !has(dir, "partition") {
		return ID{}, false
	}
	return w.lower(w.found[0])[0].ID, true
}

// Path is where devtmpfs has a block device; empty if the kernel has none.
func (s Stack) Path(id ID) string {
	dir := s.walk(id).dir(id)
	if dir == "" {
		return ""
	}
	return device(dir, Range{}, true).Path
}

// Nodes lists the character devices that take commands for a disk, by their numbers as stat(2) has them: those of SCSI (sg, bsg) and
// of NVMe, where the controller's takes them for all of its disks.
func (s Stack) Nodes(id ID) (list []uint64) {
	w := s.walk(ID{})
	if number := fmt.Sprintf("%d:%d", unix.Major(id.Ino), unix.Minor(id.Ino)); !has(filepath.Join(w.Sys, "dev/block", number), "device") {
		return nil // most have none: it takes one look
	}
	dir := w.dir(id)
	generic := "ng" + strings.TrimPrefix(filepath.Base(dir), "nvme")
	for _, pattern := range []string{"scsi_generic/*", "bsg/*", generic, "nvme[0-9]", "nvme[0-9][0-9]", "."} {
		found, _ := filepath.Glob(filepath.Join(dir, "device", pattern, "dev"))
		for _, dev := range found {
			var major, minor uint32
			if n, _ := fmt.Sscanf(line(filepath.Dir(dev), "dev"), "%d:%d", &major, &minor); n == 2 {
				list = append(list, unix.Mkdev(major, minor))
			}
		}
	}
	return list
}

// HeldBy lists the kernel's names of the devices that are made of a block device.
func (s Stack) HeldBy(id ID) []string {
	dir := s.walk(id).dir(id)
	if dir == "" {
		return nil
	}
	return names(filepath.Join(dir, "holders"))
}

// MountedOn is where a block device is mounted in this mount namespace; empty: nowhere. proc is where proc is mounted.
func MountedOn(proc string, id ID) (point string) {
	table, err := os.Open(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return ""
	}
	defer table.Close()
	_, _ = mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		if unix.Mkdev(uint32(m.Major), uint32(m.Minor)) != id.Ino {
			return true, false
		}
		point = m.Mountpoint
		return true, true
	})
	return point
}
