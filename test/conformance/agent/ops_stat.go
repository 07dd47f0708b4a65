// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// statOps read attributes. Each takes what to look at and the fields to print.
var statOps = map[string]operation{
	"stat":  func(c *call) (string, error) { return c.statx(unix.AT_FDCWD, c.str(), 0) },
	"lstat": func(c *call) (string, error) { return c.statx(unix.AT_FDCWD, c.str(), unix.AT_SYMLINK_NOFOLLOW) },
	"fstat": func(c *call) (string, error) { return c.statx(c.fd(), "", unix.AT_EMPTY_PATH) },
	"fstatat": func(c *call) (string, error) {
		return c.statx(c.fd(), c.str(), unix.AT_SYMLINK_NOFOLLOW)
	},
	// fresh is lstat that may not be answered from a cache.
	"fresh": func(c *call) (string, error) {
		return c.statx(unix.AT_FDCWD, c.str(), unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_FORCE_SYNC)
	},
	"same":   opSame,
	"statfs": opStatfs,
}

func (c *call) statx(dir int, path string, flags int) (string, error) {
	fields := c.rest()
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	var out []string
	for _, name := range fields {
		value, ok := field(&st, name)
		if !ok {
			panic(badCall("no stat field is called " + name))
		}
		out = append(out, value)
	}
	return strings.Join(out, " "), nil
}

func field(st *unix.Statx_t, name string) (string, bool) {
	switch name {
	case "type":
		return formatName(uint32(st.Mode)), true
	case "mode":
		return fmt.Sprintf("%04o", st.Mode&0o7777), true
	case "uid":
		return fmt.Sprint(st.Uid), true
	case "gid":
		return fmt.Sprint(st.Gid), true
	case "nlink":
		return fmt.Sprint(st.Nlink), true
	case "size":
		return fmt.Sprint(st.Size), true
	case "blocks":
		return fmt.Sprint(st.Blocks), true
	case "ino":
		return fmt.Sprint(st.Ino), true
	case "dev":
		return fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor), true
	case "rdev":
		return fmt.Sprintf("%d:%d", st.Rdev_major, st.Rdev_minor), true
	}
	return timeField(st, name)
}

func timeField(st *unix.Statx_t, name string) (string, bool) {
	var t unix.StatxTimestamp
	switch name {
	case "atime":
		t = st.Atime
	case "mtime":
		t = st.Mtime
	case "ctime":
		t = st.Ctime
	case "btime":
		if st.Mask&unix.STATX_BTIME == 0 {
			return "none", true
		}
		t = st.Btime
	default:
		return "", false
	}
	// Nine digits, so that text compares as time does.
	return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec), true
}

func formatName(mode uint32) string {
	for name, bits := range formats {
		if mode&unix.S_IFMT == bits {
			return name
		}
	}
	return "unknown"
}

// opSame tells whether two paths are one file.
func opSame(c *call) (string, error) {
	var a, b unix.Stat_t
	if err := unix.Lstat(c.str(), &a); err != nil {
		return "", err
	}
	if err := unix.Lstat(c.str(), &b); err != nil {
		return "", err
	}
	return fmt.Sprint(a.Ino == b.Ino && a.Dev == b.Dev), nil
}

// opStatfs prints the fields of statfs that both views of one file system must agree on.
func opStatfs(c *call) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.str(), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("bsize=%d namelen=%d blocks=%d files=%d", st.Bsize, st.Namelen, st.Blocks, st.Files), nil
}
