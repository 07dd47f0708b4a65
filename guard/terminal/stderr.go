// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
)

// TellVMM writes a line to the standard error of a VMM that has no terminal: with libvirt a pipe to virtlogd, or the
// domain's log file. `virsh start` shows the end of that log when QEMU gives up.
func TellVMM(proc procfs.FS, pid int, line func() string) error {
	if err := Tell(proc, pid, line); err == nil {
		return nil
	}
	path := fdPath(proc, pid, "2")
	if onFUSE(proc, pid, path) {
		return ErrNone // perhaps a file of the view that we serve: writing there would wait for ourselves
	}
	fd, err := reopen(path, unix.O_WRONLY|unix.O_APPEND, func(at int, st *unix.Stat_t) bool {
		t := st.Mode & unix.S_IFMT
		return (t == unix.S_IFIFO || t == unix.S_IFREG) && mayWrite(proc, pid, "2", at)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return write(fd, line()+"\n")
}

// onFUSE says whether a file of a process lies on a FUSE file system, without asking that file system anything.
func onFUSE(proc procfs.FS, pid int, path string) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return true
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	// The process's own table: this one may be in another mount namespace (a service's sandbox).
	table, err := os.Open(filepath.Join(proc.Root, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return true
	}
	defer table.Close()
	found, fuse := false, false
	_, _ = mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		if uint64(m.ID) == st.Mnt_id {
			found, fuse = true, strings.HasPrefix(m.FSType, "fuse")
		}
		return true, found
	})
	return !found || fuse // what it was given from another mount namespace, nothing is known of
}
