// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DeviceSize returns a block device's size in bytes (BLKGETSIZE64).
func DeviceSize(f *os.File) (int64, error) {
	var size uint64
	err := onFile("size of", f, func(fd int) error {
		return ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&size))
	})
	return int64(size), err
}

// DeviceReadOnly reports whether a block device is write-protected (BLKROGET).
func DeviceReadOnly(f *os.File) (bool, error) {
	var ro int32
	err := onFile("write protection of", f, func(fd int) error {
		return ioctl(fd, unix.BLKROGET, unsafe.Pointer(&ro))
	})
	return ro != 0, err
}

// Disk says which disk a block device number leads to now, by the boot and the kernel's number of the disk in it, and how many
// sectors this host has written and discarded there (a flush counts as a write of none), for a loop device also when its file was
// written to. A partition's are those of its whole disk, through which it can be written to
// as well. Both are "" where the kernel does not say it (diskseq came with Linux 5.15), and writes where nobody counts.
func Disk(rdev uint64) (disk, writes string) {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	if _, err := os.Stat(dir + "partition"); err == nil {
		dir += "../"
	}
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	boot, seq := read("/proc/sys/kernel/random/boot_id"), read(dir+"diskseq")
	if boot == "" || seq == "" {
		return "", ""
	}
	disk = boot + "/" + seq
	const written, discarded = 6, 13 // Documentation/block/stat.rst
	stat := strings.Fields(read(dir + "stat"))
	if read(dir+"queue/iostats") != "1" || len(stat) <= discarded {
		return disk, ""
	}
	writes = stat[written] + "+" + stat[discarded]
	if _, err := os.Stat(dir + "loop"); err == nil {
		below, err := os.Stat(read(dir + "loop/backing_file"))
		if err != nil {
			return disk, "" // of another mount namespace, or removed
		}
		writes += "+" + below.ModTime().Format(time.RFC3339Nano)
	}
	return disk, writes
}

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
