// SPDX-License-Identifier: Apache-2.0

// Package terminal tells people things where they are looking: on the controlling terminal of the process that they
// started, or in the log of the VMM that libvirt started for them.
//
// The writer is the daemon, and root. So it writes only to what was checked to be that very terminal, through a
// descriptor of its own (O_NONBLOCK: a stopped terminal must not hold anybody up), never as a controlling terminal.
package terminal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
)

// ErrNone means that the process has no terminal, or none that can be reached from here.
var ErrNone = errors.New("terminal: the process has none")

// Tell writes a line to the controlling terminal of a process. The line must be printable, and comes without its end. It
// is asked for only where there is a terminal.
func Tell(proc procfs.FS, pid int, line func() string) error {
	fd, err := open(proc, pid)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The carriage return is for a terminal that a program has put into raw mode.
	return write(fd, line()+"\r\n")
}

// TellDevice writes a line to a terminal of this host by its device number, for a process that has ended.
func TellDevice(device uint64, line func() string) error {
	fd, err := reopen(devicePath(device), unix.O_WRONLY, func(_ int, st *unix.Stat_t) bool {
		return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == device
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return write(fd, line()+"\r\n")
}

func write(fd int, text string) error {
	for {
		_, err := unix.Write(fd, []byte(text))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// open opens the controlling terminal of a process for writing.
func open(proc procfs.FS, pid int) (int, error) {
	stat, err := proc.Stat(pid)
	if err != nil {
		return -1, err
	}
	if stat.TTY == 0 {
		return -1, ErrNone
	}
	isTerminal := func(_ int, st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == stat.TTY }
	// A descriptor of the process leads to the right terminal, even if it is one of another devpts instance (a
	// container's), where the same number is somebody else's here.
	for _, n := range []string{"2", "1", "0"} {
		isIts := func(at int, st *unix.Stat_t) bool { return isTerminal(at, st) && mayWrite(proc, pid, n, at) }
		if fd, err := reopen(fdPath(proc, pid, n), unix.O_WRONLY, isIts); err == nil {
			return fd, nil
		}
	}
	if !proc.SameMounts(pid) {
		return -1, ErrNone
	}
	return reopen(devicePath(stat.TTY), unix.O_WRONLY, isTerminal)
}

// mayWrite says whether a process may write to what at (O_PATH) stands for, by its descriptor n. We are root: what it has open
// for reading, or as a path alone, may be any file of the host, and it may exchange its descriptors at any moment.
func mayWrite(proc procfs.FS, pid int, n string, at int) bool {
	its, err := proc.FDInfo(pid, n)
	ours, ourErr := procfs.FS{Root: "/proc"}.FDInfo(os.Getpid(), strconv.Itoa(at))
	return err == nil && ourErr == nil && its.Writes() && its.Mount == ours.Mount && its.Ino == ours.Ino
}

// reopen opens what path leads to if it is what is wanted. The look comes first, at the very thing that is then opened:
// opening a FIFO or a tape has effects. at is an O_PATH descriptor of it.
func reopen(path string, flags int, wanted func(at int, st *unix.Stat_t) bool) (int, error) {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("terminal: open %s: %w", path, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, fmt.Errorf("terminal: stat %s: %w", path, err)
	}
	if !wanted(at, &st) {
		return -1, ErrNone
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), flags|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("terminal: open %s: %w", path, err)
	}
	return fd, nil
}

func fdPath(proc procfs.FS, pid int, n string) string {
	return filepath.Join(proc.Root, strconv.Itoa(pid), "fd", n)
}

// Major numbers of pseudo-terminals (Documentation/admin-guide/devices.txt): 8 of 256 each, below devpts without a link
// in sysfs.
const (
	ptsFirst = 136
	ptsLast  = 143
)

// devicePath is the usual path of a terminal device; opening it checks that it is the one.
func devicePath(device uint64) string {
	major, minor := unix.Major(device), unix.Minor(device)
	if major >= ptsFirst && major <= ptsLast {
		return fmt.Sprintf("/dev/pts/%d", (major-ptsFirst)<<8+minor)
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/char/%d:%d", major, minor))
	if err != nil {
		return "/dev/console"
	}
	return "/dev/" + filepath.Base(link)
}

// Name is the path of a process's controlling terminal, for the record; empty if it has none.
func Name(proc procfs.FS, pid int) string {
	stat, err := proc.Stat(pid)
	if err != nil || stat.TTY == 0 {
		return ""
	}
	return devicePath(stat.TTY)
}
