// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// cacheTimeout is how long the kernel may answer from its own memory of names and attributes. One second, because VMs
// that were started before the mount, and other hosts, change the backing tree without us. Negative answers are not
// remembered at all.
const cacheTimeout = time.Second

// Lookup finds a name in a directory. "." and ".." come from open_by_handle_at(2) on the view (CAP_EXPORT_SUPPORT).
func (fs *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "." || name == ".." && in.NodeId == rootID {
		return fuse.Status(fs.lookupID(in.NodeId, out))
	}
	dir, dirfd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	return fuse.Status(fs.lookup(dir, dirfd, name, out))
}

// lookup answers with what has a name. If it is known already, as what the kernel asks for again after a second, asking
// first takes one system call in the place of three; else it is one more. It will be as it was the last time.
func (fs *FS) lookup(dir *node, dirfd int, name string, out *fuse.EntryOut) syscall.Errno {
	var st syscall.Stat_t
	askFirst := fs.lastKnown.Load()
	if askFirst {
		if err := fstatat(dirfd, name, &st); err != nil {
			return errno(err)
		}
		if fs.enterKnown(&st, out) {
			return 0
		}
	}
	fd, err := openPath(dirfd, name)
	if err != nil {
		return errno(err)
	}
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		return errno(err)
	}
	known := fs.enterKnown(&st, out)
	if known != askFirst {
		fs.lastKnown.Store(known)
	}
	if known {
		fs.nodes.closeFd(fd)
		return 0
	}
	return fs.enterAs(fd, &st, dir, name, out)
}

// enterKnown answers with a regular file that is known and held by a descriptor, so that no other can have its number.
// False: it is none.
func (fs *FS) enterKnown(st *syscall.Stat_t, out *fuse.EntryOut) bool {
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return false
	}
	n, _, done := fs.nodes.known(guard.ID{Dev: st.Dev, Ino: st.Ino})
	if n == nil {
		return false
	}
	done()
	fs.fillEntry(n, st, out)
	return true
}

// lookupID answers with a node of any kind that the kernel may have forgotten: of a file handle, it knows the id only.
func (fs *FS) lookupID(id uint64, out *fuse.EntryOut) syscall.Errno {
	n, no := fs.nodes.rememberID(id)
	if no != 0 {
		return no
	}
	fd, release, no := fs.nodes.acquire(n)
	if no == 0 {
		defer release()
		var st syscall.Stat_t
		if no = errno(fstat(fd, &st)); no == 0 {
			fs.fillEntry(n, &st, out)
			return 0
		}
	}
	fs.nodes.forget(id, 1)
	return no
}

// enter answers with the inode that fd (O_PATH) stands for, and takes fd over.
func (fs *FS) enter(fd int, parent *node, name string, out *fuse.EntryOut) syscall.Errno {
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		return errno(err)
	}
	return fs.enterAs(fd, &st, parent, name, out)
}

// enterAs is enter for an inode that was looked at.
func (fs *FS) enterAs(fd int, st *syscall.Stat_t, parent *node, name string, out *fuse.EntryOut) syscall.Errno {
	n, no := fs.nodes.remember(fd, st, parent, name)
	if no != 0 {
		return no
	}
	fs.fillEntry(n, st, out)
	return 0
}

func (fs *FS) fillEntry(n *node, st *syscall.Stat_t, out *fuse.EntryOut) {
	out.NodeId = n.id
	out.SetEntryTimeout(cacheTimeout)
	out.SetAttrTimeout(n.entryTimeout(st.Mode))
	fs.fillAttr(st, &out.Attr)
}

// attrTimeout is how long attributes that were asked for are good. Not at all while somebody has the file open for writing,
// and those from before are taken back then (attachNew). After a write(2) in passthrough the kernel asks again by itself (fuse_passthrough_end_write, Linux 6.18), but
// a store through a shared mapping changes the times without its or our knowledge.
//
// Nor those of a set-id file, ever: a write takes the bits away on disk, and a kernel that remembered them would run what
// was written as the file's owner.
func (n *node) attrTimeout(mode uint32) time.Duration {
	if a := n.active(); a != nil && a.writers.Load() > 0 || setID(mode) {
		return 0
	}
	return cacheTimeout
}

// entryTimeout is how long attributes are good that come with a name: for what follows at once. The kernel checks
// permission before it opens what it has just looked up or made, and would ask again for that.
func (n *node) entryTimeout(mode uint32) time.Duration {
	if setID(mode) {
		return 0
	}
	return max(n.attrTimeout(mode), time.Millisecond)
}

// setID says that a file runs as its owner or group.
func setID(mode uint32) bool {
	return mode&syscall.S_IFMT == syscall.S_IFREG && mode&(syscall.S_ISUID|syscall.S_ISGID) != 0
}

func (fs *FS) fillAttr(st *syscall.Stat_t, a *fuse.Attr) {
	a.FromStat(st)
	a.Ino = fs.ino(st)
}

// ino is the inode number that the view shows: the file's own. Those of file systems mounted below the view's root are
// moved out of the way, for to the kernel the view is one device.
func (fs *FS) ino(st *syscall.Stat_t) uint64 {
	if fs.nodes.mounts.root(st.Dev) {
		return st.Ino
	}
	return st.Ino ^ (st.Dev*0x9e3779b97f4a7c15)&^0xffffffff
}

// Forget takes back lookups.
func (fs *FS) Forget(id, lookups uint64) { fs.nodes.forget(id, lookups) }
