// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
)

// BlockDevice is the Dev of an ID that is a block device. No file system has this device number.
const BlockDevice = ^uint64(0)

// String is for messages and keys.
func (id ID) String() string { return fmt.Sprintf("%#x:%d", id.Dev, id.Ino) }

// StatID is the identity of what st describes.
func StatID(st *unix.Stat_t) ID {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return ID{Dev: BlockDevice, Ino: st.Rdev}
	}
	return ID{Dev: st.Dev, Ino: st.Ino}
}

// Birth tells a file from a later one that got its inode number. The zero Birth: its file system does not.
type Birth struct {
	Born time.Time `json:"born,omitzero"`
	// Handle is the file handle, which has the inode's generation; only where there is no time of birth (NFS, ext4 with
	// inodes of 128 bytes).
	Handle string `json:"handle,omitempty"`
}

// BirthOf is the birth of the file behind a descriptor.
func BirthOf(fd int) Birth {
	b := Birth{Born: Born(fd)}
	if !b.Born.IsZero() {
		return b
	}
	if h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); err == nil {
		b.Handle = fmt.Sprintf("%d:%x", h.Type(), h.Bytes())
	}
	return b
}

// is says whether a file with another birth may be the same one.
func (b Birth) is(other Birth) bool { return b.Born.Equal(other.Born) && b.Handle == other.Handle }

// Born is when the file behind a descriptor was made, as its file system tells; zero where it does not. The number of
// an inode that is gone is soon another file's, which this tells apart.
func Born(fd int) time.Time {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) != nil {
		return time.Time{}
	}
	return bornAs(&st)
}

func bornAs(st *unix.Statx_t) time.Time {
	if st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// fileID is the identity of a file that a process has open.
func fileID(o *procfs.OpenFile) ID {
	return StatID(&unix.Stat_t{Dev: o.Dev, Ino: o.Ino, Rdev: o.Rdev, Mode: o.Mode})
}
