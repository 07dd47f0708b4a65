// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// witness is a directory whose stamp says that a directory of status files is as it was read: that one itself, or where it
// does not exist, the nearest above it that does.
//
// It is asked in a way that cannot hang, whatever has been mounted since: only what the kernel has in memory is looked at. So
// no other goroutine is needed for it, and a decision where nothing has changed costs 20 µs and not 200 (2 CPUs, five
// directories; two wake-ups each).
type witness struct {
	path  string // empty: there is none
	stamp stamp
	asked time.Time // when it was looked at
}

// changedNothing says that the directory is as it was read. False: look.
func (w *witness) changedNothing(l *look) bool {
	if w.path == "" {
		return false
	}
	if l.path != w.path { // that of several directories that do not exist is the same
		s, err := stampCached(w.path)
		*l = look{path: w.path, stamp: s, ok: err == nil}
	}
	return l.ok && l.stamp == w.stamp && l.stamp.settledBy(w.asked)
}

// look is the last look at a witness during one Refresh.
type look struct {
	path  string
	stamp stamp
	ok    bool
}

const resolveCached = 0x20 // RESOLVE_CACHED (openat2(2)), which x/sys/unix does not have

// stampCached is stampPath for what the kernel has in memory; any error means to ask otherwise. EAGAIN: it is not there.
// EINVAL: a kernel before 5.12.
func stampCached(path string) (stamp, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		return stamp{}, err
	}
	defer unix.Close(fd)
	var sx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &sx); err != nil {
		return stamp{}, err
	}
	timespec := func(t unix.StatxTimestamp) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }
	return stamp{
		dev: unix.Mkdev(sx.Dev_major, sx.Dev_minor), ino: sx.Ino, size: int64(sx.Size), mtime: timespec(sx.Mtime), ctime: timespec(sx.Ctime),
	}, nil
}

// alwaysFresh are file systems whose stamps in memory are those that there are. A network's are not.
var alwaysFresh = []uint32{unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC}

func isFresh(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && slices.Contains(alwaysFresh, uint32(st.Type))
}

// findWitness looks for one, when the directory has just been read.
func (d *dir) findWitness() witness {
	if d.err != nil || d.noted {
		return witness{}
	}
	if d.stamp != (stamp{}) {
		if !isFresh(d.path) {
			return witness{}
		}
		return witness{path: d.path, stamp: d.stamp, asked: d.scanned}
	}
	for missing := filepath.Clean(d.path); missing != "/" && missing != "."; {
		above := filepath.Dir(missing)
		asked := time.Now()
		s, err := stampPath(above)
		if errors.Is(err, fs.ErrNotExist) {
			missing = above
			continue
		}
		// Now that there is a stamp, the name must be missing still. A symbolic link that leads nowhere is not: what it names
		// may come without a trace here.
		if _, missed := os.Lstat(missing); err != nil || !errors.Is(missed, fs.ErrNotExist) || !isFresh(above) {
			return witness{}
		}
		return witness{path: above, stamp: s, asked: asked}
	}
	return witness{}
}
