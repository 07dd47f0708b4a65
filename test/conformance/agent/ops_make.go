// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// makeOps prepare a case; they are no system calls themselves.
var makeOps = map[string]operation{
	"make":  opMake,
	"write": opWriteFile,
	"dirs":  func(c *call) (string, error) { return "", makeDirs(c.str()) },
	"many":  opMany,
}

// opMake creates a file of any type: TYPE PATH [UID GID [MODE]]. Modes are 0755 for directories, 0644 for the rest.
func opMake(c *call) (string, error) {
	kind, path := c.str(), c.str()
	if err := create(kind, path); err != nil {
		return "", err
	}
	if c.more() {
		if err := unix.Lchown(path, c.int(), c.int()); err != nil {
			return "", err
		}
	}
	if c.more() {
		if mode := c.mode(); kind != "symlink" {
			return "", unix.Chmod(path, mode)
		}
	}
	return "", nil
}

func create(kind, path string) error {
	switch kind {
	case "regular":
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case "dir":
		return unix.Mkdir(path, 0o755)
	case "fifo":
		return unix.Mkfifo(path, 0o644)
	case "char":
		return unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3)))
	case "block":
		return unix.Mknod(path, unix.S_IFBLK|0o644, int(unix.Mkdev(7, 250)))
	case "socket":
		return bindSocket(path)
	case "symlink":
		return unix.Symlink("target", path)
	}
	panic(badCall("no file type is called " + kind))
}

// opWriteFile makes a regular file with contents: PATH DATA.
func opWriteFile(c *call) (string, error) {
	path, data := c.str(), c.str()
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(data))
	return "", err
}

// makeDirs makes the directories above path. It goes down by descriptors, since the path may be too long for one call.
func makeDirs(path string) error {
	parts := strings.Split(path, "/")
	at := unix.AT_FDCWD
	defer func() { closeDir(at) }()
	for _, name := range parts[:len(parts)-1] {
		if err := unix.Mkdirat(at, name, 0o755); err != nil && err != unix.EEXIST {
			return err
		}
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		closeDir(at)
		at = next
	}
	return nil
}

func closeDir(fd int) {
	if fd != unix.AT_FDCWD {
		unix.Close(fd)
	}
}

// opMany makes COUNT empty files named PREFIX0, PREFIX1, ...
func opMany(c *call) (string, error) {
	prefix, count := c.str(), c.int()
	for i := range count {
		if err := create("regular", fmt.Sprint(prefix, i)); err != nil {
			return "", err
		}
	}
	return "", nil
}
