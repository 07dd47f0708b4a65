// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"
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

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
