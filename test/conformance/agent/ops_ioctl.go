// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlOps ask the file system for what has no system call.
var ioctlOps = map[string]operation{
	"lsattr": func(c *call) (string, error) {
		flags, err := inodeFlags(c.str())
		return letters(flags), err
	},
	"chattr": opChattr,
	"ioctl":  opIoctl,
}

// The inode flags of chattr(1) that a script may name (include/uapi/linux/fs.h).
var inodeFlagLetters = []struct {
	letter string
	bit    int
}{{"s", 0x1}, {"u", 0x2}, {"c", 0x4}, {"S", 0x8}, {"i", 0x10}, {"a", 0x20}, {"d", 0x40}, {"A", 0x80}, {"D", 0x10000}}

func letters(flags int) string {
	var out strings.Builder
	for _, f := range inodeFlagLetters {
		if flags&f.bit != 0 {
			out.WriteString(f.letter)
		}
	}
	if out.Len() == 0 {
		return "none"
	}
	return out.String()
}

func inodeFlags(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	return flags, err
}

// opChattr takes a path and +LETTERS or -LETTERS.
func opChattr(c *call) (string, error) {
	path, change := c.str(), c.str()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return "", err
	}
	for _, f := range inodeFlagLetters {
		if !strings.Contains(change[1:], f.letter) {
			continue
		}
		if change[0] == '+' {
			flags |= f.bit
		} else {
			flags &^= f.bit
		}
	}
	return "", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
}

// ioctls are requests that would harm the lower file system if they were passed on blindly, and one that nobody knows.
// Each gets a page of zeroes as its argument.
var ioctls = map[string]uint{
	"FS_IOC_SHUTDOWN":     0x8004587d,
	"EXT4_IOC_RESIZE_FS":  0x40086610,
	"EXT4_IOC_SWAP_BOOT":  0x6611,
	"EXT4_IOC_CHECKPOINT": 0x4004662b,
	"FIFREEZE":            0xc0045877,
	"FITHAW":              0xc0045878,
	"FITRIM":              0xc0185879,
	"XFS_IOC_GOINGDOWN":   0x8004587d,
	"BTRFS_SNAP_CREATE":   0x50009401,
	"LOOP_SET_FD":         0x4c00,
	"UNKNOWN":             0xc0045aff,
}

func opIoctl(c *call) (string, error) {
	fd, name := c.fd(), c.str()
	request, ok := ioctls[name]
	if !ok {
		panic(badCall(fmt.Sprintf("no ioctl is called %s", name)))
	}
	page := make([]byte, 4096)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(&page[0])))
	if e != 0 {
		return "", e
	}
	return "", nil
}
