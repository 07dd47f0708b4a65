// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// stamp tells one version of a file or directory from the next. Two that are equal mean the same contents, but for
// a change within the same tick of the file system's clock (see granule).
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// granule is longer than a tick of any clock that stamps files (1 to 10 ms; jiffies). A directory that was changed
// less than this before it was read may be changed again without its stamp showing it, as with git's "racily clean"
// index entries; it is read again until it has been left alone for that long.
const granule = 50 * time.Millisecond

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// settledBy says whether the last change was safely before t. A clock that was set back makes it say no, which costs
// time and is safe.
func (s stamp) settledBy(t time.Time) bool {
	return t.Sub(time.Unix(s.mtime.Unix())) > granule && t.Sub(time.Unix(s.ctime.Unix())) > granule
}

// statAt stamps name below dirfd, without following a symbolic link.
func statAt(dirfd int, name string) (stamp, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.EINTR) {
			return stampOf(&st), err
		}
	}
}
