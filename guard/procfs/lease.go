package procfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// OpenElsewhere says whether any process but the caller of this function may have the file open, by asking for a write
// lease on it and giving it back at once: the kernel grants one only where there is no other opener (fcntl(2),
// F_SETLEASE; check_conflicting_open in fs/locks.c). f must be open read-only. True is also the answer where
// leases do not tell: on block devices, on file systems that have none or see only a part of the openers (network,
// FUSE, overlay), without CAP_LEASE for another's file.
//
// An open that falls into the microsecond between the two calls waits for the lease, or gets EWOULDBLOCK if it was
// made with O_NONBLOCK; OpenRetry is for those of our own.
func OpenElsewhere(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return true
	}
	elsewhere := true
	_ = conn.Control(func(fd uintptr) {
		if !leasesTell(int(fd)) {
			return
		}
		if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			return
		}
		elsewhere = false
		_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
	})
	return elsewhere
}

// leasesTell names the file systems whose inodes the kernel's lease code sees every opener of.
func leasesTell(fd int) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// OpenRetry repeats an O_NONBLOCK open that met a lease probe of another check.
func OpenRetry(open func() (*os.File, error)) (*os.File, error) {
	const tries = 100 // a probe lasts a microsecond; a lease of somebody else's lasts, and is that one's own affair
	for n := 0; ; n++ {
		f, err := open()
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || n == tries {
			return f, err
		}
	}
}
