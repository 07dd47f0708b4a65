package guard

import (
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
)

// BlockDevice is the Dev of an ID that is a block device. No file system has this device number.
const BlockDevice = ^uint64(0)

// StatID is the identity of what st describes.
func StatID(st *unix.Stat_t) ID {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return ID{Dev: BlockDevice, Ino: st.Rdev}
	}
	return ID{Dev: st.Dev, Ino: st.Ino}
}

// Born is when the file behind a descriptor was made, as its file system tells; zero where it does not. The number of
// an inode that is gone is soon another file's, which this tells apart.
func Born(fd int) time.Time {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// fileID is the identity of a file that a process has open.
func fileID(o *procfs.OpenFile) ID {
	return StatID(&unix.Stat_t{Dev: o.Dev, Ino: o.Ino, Rdev: o.Rdev, Mode: o.Mode})
}
