// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// LoginUID is the user that a process's session was logged in as, which sudo and su do not change (pam_loginuid). False:
// it never was set (a service, a host without PAM's module), or the kernel does not keep it.
func (f FS) LoginUID(id int) (uint32, bool) {
	var buf [16]byte
	n, err := f.read(id, "loginuid", buf[:])
	if err != nil {
		return 0, false
	}
	uid, err := strconv.ParseUint(string(bytes.TrimSpace(buf[:n])), 10, 32)
	if err != nil || uid == 1<<32-1 {
		return 0, false
	}
	return uint32(uid), true
}

// SameMounts says whether a process lives in the host's mount namespace, so that a path means the same to both. That is
// this process's own, or the first process's if this one is known to have another (Host). It is an answer about what
// the process sees, not about its root directory.
func (f FS) SameMounts(id int) bool {
	var mine, other unix.Stat_t
	whose := "self"
	if f.Host != "" {
		whose = "1"
	}
	if err := unix.Stat(filepath.Join(f.Root, whose, "ns/mnt"), &mine); err != nil {
		return false
	}
	err := unix.Stat(f.path(id, "ns/mnt"), &other)
	return err == nil && mine.Ino == other.Ino && mine.Dev == other.Dev
}
