// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/test/guest/block"
	"imgward/test/guest/wire"
)

// disks lists virtio and SCSI disks and drives.
func disks() ([]wire.Disk, error) {
	var found []wire.Disk
	dirs, err := filepath.Glob("/sys/block/*")
	for _, dir := range dirs {
		name := filepath.Base(dir)
		if !strings.HasPrefix(name, "vd") && !strings.HasPrefix(name, "sr") {
			continue
		}
		sectors, err := strconv.ParseInt(attribute(dir, "size"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s/size: %w", dir, err)
		}
		found = append(found, wire.Disk{
			Name:     name,
			Serial:   attribute(dir, "serial"),
			Bytes:    sectors * 512, // always, whatever the disk's own sector size
			ReadOnly: attribute(dir, "ro") == "1",
		})
	}
	return found, err
}

func attribute(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}

// openDisk opens a disk by serial number, or by the kernel's name if it has none. O_DIRECT: what is read comes from the
// host, and an error of the host is the reply to the very write that it hit.
func openDisk(disk string, flags int) (*os.File, error) {
	all, err := disks()
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.Serial == disk || d.Serial == "" && d.Name == disk {
			return os.OpenFile("/dev/"+d.Name, flags|unix.O_DIRECT, 0)
		}
	}
	return nil, fmt.Errorf("no disk %s", disk)
}

// aligned returns a buffer for direct I/O: page-aligned, for it is a mapping of its own.
func aligned(size int) []byte {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("mmap of %d bytes: %v", size, err)) // no memory: the guest has failed as a whole
	}
	return b
}

// discard frees blocks of a disk (BLKDISCARD, linux/fs.h), as fstrim does.
func discard(disk string, first, blocks uint64) error {
	f, err := openDisk(disk, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	span := [2]uint64{first * block.Size, blocks * block.Size}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return fmt.Errorf("discard on %s: %w", disk, errno)
	}
	return nil
}

// sum returns the SHA-256 of part of a disk, read past the guest's cache.
func sum(req *wire.Request) (string, error) {
	f, err := openDisk(req.Disk, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := aligned(64 * block.Size)
	defer unix.Munmap(buf)
	h := sha256.New()
	at, end := int64(req.First*block.Size), int64((req.First+req.Blocks)*block.Size)
	for at < end {
		part := buf[:min(int64(len(buf)), end-at)]
		if _, err := f.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read %s at %d: %w", req.Disk, at, err)
		}
		h.Write(part)
		at += int64(len(part))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
