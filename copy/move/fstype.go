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

// server is who carries out a copy_file_range(2) on behalf of the kernel.
type server int

const (
	nobody  server = iota
	daemon         // a FUSE file system's
	network        // an NFS, SMB or Ceph server: what it copies does not cross the network twice
)

// OnFUSE reports whether a daemon serves the file system of f.
func OnFUSE(f *os.File) bool { return behind(f) == daemon }

// behind is who serves the file system of f.
func behind(f *os.File) server {
	const ceph = 0x00c36400
	switch fsType(f) {
	case unix.FUSE_SUPER_MAGIC:
		return daemon
	case unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, ceph:
		return network
	}
	return nobody
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
