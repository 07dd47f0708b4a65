// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// nameOps make, remove and move names.
var nameOps = map[string]operation{
	"mkdir":   func(c *call) (string, error) { return "", unix.Mkdir(c.str(), c.mode()) },
	"mkdirat": func(c *call) (string, error) { return "", unix.Mkdirat(c.fd(), c.str(), c.mode()) },
	"rmdir":   func(c *call) (string, error) { return "", unix.Rmdir(c.str()) },
	"unlink":  func(c *call) (string, error) { return "", unix.Unlink(c.str()) },
	"unlinkat": func(c *call) (string, error) {
		return "", unix.Unlinkat(c.fd(), c.str(), c.flags())
	},
	"link":   func(c *call) (string, error) { return "", unix.Link(c.str(), c.str()) },
	"linkat": func(c *call) (string, error) { return "", unix.Linkat(c.fd(), c.str(), c.fd(), c.str(), c.flags()) },
	// linkfd names an open file by way of /proc, as man 2 open describes for O_TMPFILE.
	"linkfd": func(c *call) (string, error) {
		return "", unix.Linkat(unix.AT_FDCWD, procPath(c.fd()), unix.AT_FDCWD, c.str(), unix.AT_SYMLINK_FOLLOW)
	},
	"symlink":   func(c *call) (string, error) { return "", unix.Symlink(c.str(), c.str()) },
	"symlinkat": func(c *call) (string, error) { return "", unix.Symlinkat(c.str(), c.fd(), c.str()) },
	"readlink":  opReadlink,
	"rename":    func(c *call) (string, error) { return "", syscall.Rename(c.str(), c.str()) },
	"renameat": func(c *call) (string, error) {
		return "", unix.Renameat(c.fd(), c.str(), c.fd(), c.str())
	},
	"renameat2": func(c *call) (string, error) {
		return "", unix.Renameat2(unix.AT_FDCWD, c.str(), unix.AT_FDCWD, c.str(), uint(c.flags()))
	},
	"mkfifo": func(c *call) (string, error) { return "", unix.Mkfifo(c.str(), c.mode()) },
	"bind":   func(c *call) (string, error) { return "", bindSocket(c.str()) },
	"mknod":  opMknod,
	"listen": func(c *call) (string, error) {
		fd, err := openSocket(c.str(), unix.Bind)
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		return c.keep(fd, err)
	},
	"connect": func(c *call) (string, error) { return c.keep(openSocket(c.str(), unix.Connect)) },
}

func opReadlink(c *call) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(c.str(), buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// opMknod takes a path, a type, a mode and for devices major and minor.
func opMknod(c *call) (string, error) {
	path, kind, mode := c.str(), c.str(), c.mode()
	var device uint64
	if c.more() {
		device = unix.Mkdev(uint32(c.int()), uint32(c.int()))
	}
	bits, ok := formats[kind]
	if !ok {
		panic(badCall("no file type is called " + kind))
	}
	return "", unix.Mknod(path, bits|mode, int(device))
}

// formats are the type bits of st_mode.
var formats = map[string]uint32{
	"regular": unix.S_IFREG, "dir": unix.S_IFDIR, "fifo": unix.S_IFIFO, "char": unix.S_IFCHR, "block": unix.S_IFBLK,
	"symlink": unix.S_IFLNK, "socket": unix.S_IFSOCK, "none": 0,
}

func bindSocket(path string) error {
	fd, err := openSocket(path, unix.Bind)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openSocket(path string, address func(int, unix.Sockaddr) error) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := address(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
