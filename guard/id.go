package guard

import (
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

// fileID is the identity of a file that a process has open.
func fileID(o *procfs.OpenFile) ID {
	return StatID(&unix.Stat_t{Dev: o.Dev, Ino: o.Ino, Rdev: o.Rdev, Mode: o.Mode})
}
