// SPDX-License-Identifier: Apache-2.0

package move

import (
	"os"

	"golang.org/x/sys/unix"
)

// fsType is statfs(2)'s f_type; 0 if it cannot be asked.
func fsType(f *os.File) int64 {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return 0
	}
	return int64(st.Type)
}

// DirectPays reports whether direct writes to f bypass the page cache in fact. btrfs takes them and, since it checksums
// data, sends them through the cache one at a time (Linux 6.14).
func DirectPays(f *os.File) bool { return fsType(f) != unix.BTRFS_SUPER_MAGIC }

// OnFUSE reports whether a daemon serves the file system of f.
func OnFUSE(f *os.File) bool { return fsType(f) == unix.FUSE_SUPER_MAGIC }

// ServerCopies reports whether somebody behind the kernel may carry out a copy_file_range(2) into f: a FUSE daemon, or a
// network server, and then the data does not cross the network twice.
func ServerCopies(f *os.File) bool {
	const ceph = 0x00c36400
	switch fsType(f) {
	case unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, ceph:
		return true
	}
	return false
}

// IsRegular is false also for what cannot be asked.
func IsRegular(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular()
}

// Allocated is what f takes up on its medium, in bytes.
func Allocated(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}
