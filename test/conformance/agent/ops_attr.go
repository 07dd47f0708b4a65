// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attrOps change attributes.
var attrOps = map[string]operation{
	"chmod":  func(c *call) (string, error) { return "", unix.Chmod(c.str(), c.mode()) },
	"fchmod": func(c *call) (string, error) { return "", unix.Fchmod(c.fd(), c.mode()) },
	"lchmod": func(c *call) (string, error) {
		return "", unix.Fchmodat(unix.AT_FDCWD, c.str(), c.mode(), unix.AT_SYMLINK_NOFOLLOW)
	},
	"chown":  func(c *call) (string, error) { return "", unix.Chown(c.str(), c.int(), c.int()) },
	"lchown": func(c *call) (string, error) { return "", unix.Lchown(c.str(), c.int(), c.int()) },
	"fchown": func(c *call) (string, error) { return "", unix.Fchown(c.fd(), c.int(), c.int()) },
	"chownempty": func(c *call) (string, error) {
		return "", unix.Fchownat(c.fd(), "", c.int(), c.int(), unix.AT_EMPTY_PATH)
	},
	"truncate":  func(c *call) (string, error) { return "", unix.Truncate(c.str(), c.num()) },
	"ftruncate": func(c *call) (string, error) { return "", unix.Ftruncate(c.fd(), c.num()) },
	"utimens":   func(c *call) (string, error) { return "", utimens(unix.AT_FDCWD, c.str(), c, 0) },
	"lutimens": func(c *call) (string, error) {
		return "", utimens(unix.AT_FDCWD, c.str(), c, unix.AT_SYMLINK_NOFOLLOW)
	},
	"futimens": opFutimens,
	// utimesnull is utimensat with a null pointer, which needs only write permission.
	"utimesnull": func(c *call) (string, error) { return "", utimensat(unix.AT_FDCWD, c.str(), nil, 0) },
	"access": func(c *call) (string, error) {
		return "", unix.Faccessat(unix.AT_FDCWD, c.str(), uint32(c.flags()), 0)
	},
	"eaccess": func(c *call) (string, error) {
		return "", unix.Faccessat2(unix.AT_FDCWD, c.str(), uint32(c.flags()), unix.AT_EACCESS)
	},
}

func utimens(dir int, path string, c *call, flags int) error {
	ts := [2]unix.Timespec{c.time(), c.time()}
	return utimensat(dir, path, &ts, flags)
}

func opFutimens(c *call) (string, error) {
	fd := c.fd()
	ts := [2]unix.Timespec{c.time(), c.time()}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if e != 0 {
		return "", e
	}
	return "", nil
}

func utimensat(dir int, path string, ts *[2]unix.Timespec, flags int) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(ts)),
		uintptr(flags), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// time takes "now", "omit", or seconds with an optional fraction of nine digits.
func (c *call) time() unix.Timespec {
	word := c.str()
	switch word {
	case "now":
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case "omit":
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	whole, fraction, _ := strings.Cut(word, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec, err2 := strconv.ParseInt("0"+fraction, 10, 64)
	if err != nil || err2 != nil {
		panic(badCall(fmt.Sprintf("%q is no time", word)))
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}
}
