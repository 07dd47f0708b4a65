// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFile is a file that a process holds open: what /proc/PID/fd shows of it.
type OpenFile struct {
	Process
	Dev, Ino, Rdev uint64
	Mode           uint32 // type and permissions, as stat(2) gives them
	Path           string // as the kernel prints it
	Write          bool   // opened for writing
	Size           uint64 // in bytes; of a file of FUSE, what the kernel remembers
	// Stream: opened for writing alone, or for appending: a log, serial output. No disk is opened so.
	Stream bool
}

// Match says by Dev, Ino, Rdev and Mode whether a file is the one that is looked for; the rest is not known yet. It saves
// two of three system calls for each descriptor. Nil: any file.
type Match func(*OpenFile) bool

// VMMFiles calls yield for every regular file and block device that a VMM process holds open and that match takes, until
// yield says false. A process that ends meanwhile is left out, and so are those whose executable skip names. stuck are
// those that could not be looked at: they are about to execute another program, and may be anything. The error is ctx's,
// or about /proc itself.
//
// Files mapped into memory and closed since (mmap) do not show in /proc/PID/fd; no VMM does that with a disk.
func (c *Classifier) VMMFiles(ctx context.Context, match Match, skip func(exe string) bool, yield func(OpenFile) bool) (stuck []int, err error) {
	pids, err := c.FS.pids()
	if err != nil {
		return nil, err
	}
	return walk(ctx, &c.walker, pids, func(pid int, found func(OpenFile) bool) {
		exe := c.FS.exePath(pid)
		if exe == "" || pid == os.Getpid() || skip(exe) {
			return // a kernel thread, or this very daemon
		}
		// What it is costs more than what it has open, where a certain file is wanted.
		if match == nil && !c.isVMM(pid) || match != nil && !c.FS.Holds(pid, match) {
			return
		}
		if p, err := c.Classify(pid); err == nil && c.runsVM(p) {
			c.FS.files(p, match, found)
		}
	}, yield)
}

func (c *Classifier) isVMM(pid int) bool {
	p, err := c.Classify(pid)
	return err == nil && c.runsVM(p)
}

// Holds says whether a process has a file open that match takes.
func (f FS) Holds(pid int, match Match) bool {
	found := false
	f.files(Process{PID: pid}, match, func(OpenFile) bool {
		found = true
		return false
	})
	return found
}

// Files calls yield for the files that a process has open and that match takes, until it says false.
func (f FS) Files(pid int, match Match, yield func(*OpenFile) bool) {
	f.files(Process{PID: pid}, match, func(o OpenFile) bool { return yield(&o) })
}

// exePath is the path of what a process executes, without the kernel's mark for a file that was replaced; empty if there
// is none. One system call sorts out most processes.
func (f FS) exePath(pid int) string {
	path, err := os.Readlink(f.path(pid, "exe"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, deletedSuffix)
}

// pids lists the processes (not the threads) in the order of the kernel's listing.
func (f FS) pids() ([]int, error) {
	dir, err := os.Open(f.Root)
	if err != nil {
		return nil, fmt.Errorf("procfs: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("procfs: list %s: %w", f.Root, err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// files yields the files that a process has open and that match takes, and says whether it is to go on.
func (f FS) files(p Process, match Match, yield func(OpenFile) bool) bool {
	base := f.path(p.PID, "fd")
	dir, err := os.Open(base)
	if err != nil {
		return true // it ended, or it is not ours to look into
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return true
	}
	for _, name := range names {
		o, ok := openFile(int(dir.Fd()), name, match)
		if !ok {
			continue
		}
		o.Process = p
		o.Stream = o.Stream || o.Write && f.appends(p.PID, name)
		if !yield(o) {
			return false
		}
	}
	return true
}

// openFile looks at one descriptor. The link's own mode shows how it was opened (proc_fd_link: 0200 for writing). The
// file behind it is never opened, which could block; and it is looked at with AT_STATX_DONT_SYNC, which lets FUSE answer
// from the kernel's memory: the file may lie in the view whose request we are serving.
func openFile(dirfd int, name string, match Match) (OpenFile, bool) {
	var st unix.Statx_t
	if err := unix.Statx(dirfd, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE, &st); err != nil {
		return OpenFile{}, false
	}
	o := fileOf(&st)
	if t := o.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFBLK || match != nil && !match(&o) {
		return o, false
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirfd, name, target)
	if err != nil || n == 0 || target[0] != '/' { // a memfd, a file without a name
		return o, false
	}
	var link unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &link, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return o, false
	}
	o.Path, o.Write = string(target[:n]), link.Mode&0o200 != 0
	o.Stream = link.Mode&0o600 == 0o200
	return o, true
}

// appends says whether a descriptor was opened with O_APPEND.
func (f FS) appends(pid int, fd string) bool {
	info, _ := f.FDInfo(pid, fd)
	return info.Flags&unix.O_APPEND != 0
}

func fileOf(st *unix.Statx_t) OpenFile {
	return OpenFile{
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Mode: uint32(st.Mode), Size: st.Size,
	}
}
