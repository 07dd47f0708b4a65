// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Below is a process that has something to do with a directory: it works there, has its root there, or a directory open.
type Below struct {
	PID  int
	Comm string
	TTY  uint64 // device number of its controlling terminal; 0: none
	// How is "cwd", "root" or "fd": what of the process leads there.
	How  string
	Path string // of that directory, as the kernel prints it
}

// maxDepth bounds the way up from a directory, whose parents may be renamed meanwhile.
const maxDepth = 4096

// ProcessesBelow calls yield for each process whose working directory, root or open directories are the directory with
// this device and inode, or lie below it, whatever has been mounted over it since: the way up from there is compared by
// identity, so other mounts and other mount namespaces are found as well. There is one entry for each process, the
// working directory first. Processes whose executable skip names are not looked into. What cannot be looked at is left out;
// the error is ctx's, or about /proc itself.
func (f FS) ProcessesBelow(ctx context.Context, dev, ino uint64, skip func(exe string) bool, yield func(Below)) error {
	pids, err := f.pids()
	if err != nil {
		return err
	}
	var w walker
	_, err = walk(ctx, &w, pids, func(pid int, found func(Below) bool) {
		if exe := f.exePath(pid); exe == "" || skip(exe) {
			return // a kernel thread, or of no interest
		}
		if b, ok := f.below(pid, dev, ino); ok {
			found(b)
		}
	}, func(b Below) bool {
		yield(b)
		return true
	})
	return err
}

func (f FS) below(pid int, dev, ino uint64) (Below, bool) {
	b := Below{PID: pid}
	b.How, b.Path = f.leadsBelow(pid, dev, ino)
	if b.How == "" {
		return b, false
	}
	stat, err := f.Stat(pid)
	if err != nil || stat.Gone() {
		return b, false
	}
	b.Comm, b.TTY = stat.Comm, stat.TTY
	return b, true
}

func (f FS) leadsBelow(pid int, dev, ino uint64) (how, path string) {
	for _, link := range []string{"cwd", "root"} {
		if name := f.path(pid, link); liesBelow(name, dev, ino) {
			return link, readLink(name)
		}
	}
	base := f.path(pid, "fd")
	fds, err := os.ReadDir(base)
	if err != nil {
		return "", ""
	}
	for _, fd := range fds {
		name := base + "/" + fd.Name()
		if isDirectory(name) && liesBelow(name, dev, ino) {
			return "fd", readLink(name)
		}
	}
	return "", ""
}

// isDirectory asks no file system: see openFile.
func isDirectory(name string) bool {
	var st unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// liesBelow goes up from a directory until it meets the one that is looked for, or the top.
func liesBelow(name string, dev, ino uint64) bool {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { unix.Close(fd) }()
	var last [2]uint64
	for range maxDepth {
		var st unix.Statx_t
		if unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st) != nil {
			return false
		}
		here := [2]uint64{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
		if here == [2]uint64{dev, ino} {
			return true
		}
		if here == last {
			return false
		}
		last = here
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		unix.Close(fd)
		fd = up
	}
	return false
}

func readLink(name string) string {
	path, _ := os.Readlink(name)
	return strings.TrimSuffix(path, deletedSuffix)
}
