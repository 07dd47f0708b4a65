// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// FDInfo is what /proc/PID/fdinfo says of a descriptor, all of it of one moment; see proc_pid_fdinfo(5).
type FDInfo struct {
	Flags      int    // as for open(2)
	Mount, Ino uint64 // by the kernel's own numbers, to compare with those of another descriptor
}

// Writes says whether the descriptor may be written to.
func (i *FDInfo) Writes() bool {
	return i.Flags&unix.O_PATH == 0 && i.Flags&unix.O_ACCMODE != unix.O_RDONLY
}

// FDInfo looks at a descriptor of a process. Before Linux 5.14, which does not tell the inode, it fails.
func (f FS) FDInfo(pid int, fd string) (info FDInfo, err error) {
	var buf [256]byte // what follows is the file's own: locks, inotify watches
	n, err := f.read(pid, "fdinfo/"+fd, buf[:])
	if err != nil {
		return info, err
	}
	flags, err1 := number(buf[:n], "flags:", 8)
	mount, err2 := number(buf[:n], "mnt_id:", 10)
	ino, err3 := number(buf[:n], "ino:", 10)
	return FDInfo{Flags: int(flags), Mount: mount, Ino: ino}, errors.Join(err1, err2, err3)
}

// number is a line's value.
func number(text []byte, name string, base int) (uint64, error) {
	_, rest, _ := bytes.Cut(text, []byte(name))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseUint(string(bytes.TrimSpace(line)), base, 64)
}
