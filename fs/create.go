// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// New files belong to their caller, so they are made with the caller's credentials (see creds.go). The kernel leaves
// the umask to us (CAP_DONT_MASK), because a default ACL on the directory takes its place.

// Mknod makes a file, FIFO, socket or device node.
func (fs *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(&in.InHeader, name, out, func(p place) error {
		return unix.Mknodat(p.dirfd, name, fs.masked(p, in.Mode, in.Umask), int(in.Rdev))
	})
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(&in.InHeader, name, out, func(p place) error {
		return unix.Mkdirat(p.dirfd, name, fs.masked(p, in.Mode, in.Umask))
	})
}

// Symlink makes a symbolic link.
func (fs *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(in, name, out, func(p place) error {
		return unix.Symlinkat(target, p.dirfd, name)
	})
}

// create makes what deed makes, as the caller, and answers with it.
func (fs *FS) create(in *fuse.InHeader, name string, out *fuse.EntryOut, deed func(place) error) fuse.Status {
	p, no := fs.at(in.NodeId, name)
	if no != 0 {
		return fuse.Status(no)
	}
	defer p.release()
	if fs.nodes.records.Full() {
		return fuse.Status(syscall.ENFILE)
	}
	no = fs.make(in, p, func() error {
		return callerOf(in).as(setgid(p), func() error { return deed(p) })
	})
	if no != 0 {
		return fuse.Status(no)
	}
	fd, err := openPath(p.dirfd, name)
	if err != nil {
		return fuse.ToStatus(err)
	}
	return fuse.Status(fs.enter(fd, p.parent, name, out))
}

// setgid says whether new files at the place get the directory's group; only then do the caller's supplementary groups
// matter.
func setgid(p place) bool {
	var st syscall.Stat_t
	return fstat(p.dirfd, &st) == nil && st.Mode&syscall.S_ISGID != 0
}

// masked applies the umask, unless the directory has a default ACL.
func (fs *FS) masked(p place, mode, umask uint32) uint32 {
	if umask == 0 {
		return mode
	}
	if _, err := unix.Getxattr(procPath(p.dirfd), "system.posix_acl_default", nil); err == nil {
		return mode
	}
	return mode &^ (umask & 0o777)
}

// Create makes a file and opens it. The kernel sends it for a name that it does not know; if there is a file all the
// same (made beside the view a moment ago), it is opened as Open does, with the guard asked.
func (fs *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	p, no := fs.at(in.NodeId, name)
	if no != 0 {
		return fuse.Status(no)
	}
	defer p.release()
	if no := fs.roomForNew(); no != 0 {
		return fuse.Status(no)
	}
	flags := int(in.Flags)
	for {
		no := fs.createNew(p, in, out)
		if no != syscall.EEXIST || flags&unix.O_EXCL != 0 {
			return fuse.Status(no)
		}
		if no = fs.createOld(cancel, p, in, out); no != syscall.ENOENT {
			return fuse.Status(no)
		}
	}
}

// roomForNew says beforehand whether a file can be made and opened.
func (fs *FS) roomForNew() syscall.Errno {
	if fs.nodes.records.Full() {
		return syscall.ENFILE
	}
	return fs.roomForHandle()
}

// createNew makes the file with O_EXCL, so nothing that exists is touched.
func (fs *FS) createNew(p place, in *fuse.CreateIn, out *fuse.CreateOut) syscall.Errno {
	left, end := fs.once(&in.InHeader, inoAt(p))
	defer end(0, 0) // its outcome is a handle, which is found as such
	flags := int(in.Flags)&^unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	var fd int
	err := callerOf(&in.InHeader).as(setgid(p), func() (err error) {
		fd, err = unix.Openat(p.dirfd, p.name, flags, fs.masked(p, in.Mode, in.Umask)&0o7777)
		return err
	})
	if err == unix.EEXIST && left != nil && left.Words[0] == 0 {
		fd, err = unix.Openat(p.dirfd, p.name, flags&^(unix.O_CREAT|unix.O_EXCL), 0) // a predecessor made it
	}
	if err != nil {
		return errno(err)
	}
	path, err := openPath(p.dirfd, p.name)
	if err != nil {
		unix.Close(fd)
		return errno(err)
	}
	return fs.created(path, fd, p, in, out)
}

// created answers with a new file that is open as fd; path is an O_PATH descriptor of it. It takes both over.
func (fs *FS) created(path, fd int, p place, in *fuse.CreateIn, out *fuse.CreateOut) syscall.Errno {
	if no := fs.enter(path, p.parent, p.name, &out.EntryOut); no != 0 {
		unix.Close(fd)
		return no
	}
	n, no := fs.nodes.get(out.NodeId)
	if no == 0 {
		a := n.activity()
		a.deeds.Lock()
		defer a.deeds.Unlock()
		if h := fs.handles.answer(in.Unique); h != nil && h.node == n {
			unix.Close(fd)
			a.mu.Lock()
			defer a.mu.Unlock()
			n.answerOpen(h, &out.OpenOut)
			return 0
		}
		no = fs.opened(n, fd, &opening{flags: int(in.Flags), in: &in.InHeader}, &out.OpenOut)
	}
	if no != 0 {
		fs.nodes.forget(out.NodeId, 1)
		return no
	}
	out.SetAttrTimeout(n.entryTimeout(out.Attr.Mode))
	return 0
}

// createOld opens a file that exists after all.
func (fs *FS) createOld(cancel <-chan struct{}, p place, in *fuse.CreateIn, out *fuse.CreateOut) syscall.Errno {
	fd, err := openPath(p.dirfd, p.name)
	if err != nil {
		return errno(err)
	}
	if no := fs.enter(fd, p.parent, p.name, &out.EntryOut); no != 0 {
		return no
	}
	n, no := fs.nodes.get(out.NodeId)
	if no == 0 {
		no = fs.openNode(cancel, n, &in.InHeader, int(in.Flags), in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0, &out.OpenOut)
	}
	if no != 0 {
		fs.nodes.forget(out.NodeId, 1)
	}
	return no
}

// Tmpfile makes a file without a name (O_TMPFILE). Its descriptor goes to the keeper: nothing else finds it again.
func (fs *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if no := fs.roomForNew(); no != 0 {
		return fuse.Status(no)
	}
	dir, dirfd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	p := place{parent: dir, dirfd: dirfd, name: ".", release: release}
	defer p.release()
	fd, err := fs.tmpfile(p, in)
	if err != nil {
		return fuse.ToStatus(err)
	}
	path, err := unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fuse.ToStatus(err)
	}
	if no := fs.created(path, fd, p, in, out); no != 0 {
		return fuse.Status(no)
	}
	h, no := fs.handles.get(out.Fh)
	if no == 0 {
		if no = fs.keepNew(h); no != 0 {
			fs.release(h)
		}
	}
	if no != 0 {
		fs.nodes.forget(out.NodeId, 1)
	}
	return fuse.Status(no)
}

func (fs *FS) keepNew(h *handle) syscall.Errno {
	a := h.node.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	return fs.keepDescriptor(h)
}

// tmpfile makes the file, or goes on with the one that a predecessor made for the same request, if that one's
// descriptor came to the keeper in time.
func (fs *FS) tmpfile(p place, in *fuse.CreateIn) (fd int, err error) {
	if h := fs.handles.answer(in.Unique); h != nil {
		if h.kept && h.fd != noFd {
			return unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
		}
		fs.release(h)
	}
	err = callerOf(&in.InHeader).as(setgid(p), func() (err error) {
		fd, err = unix.Openat(p.dirfd, ".", int(in.Flags)|unix.O_TMPFILE|unix.O_CLOEXEC, fs.masked(p, in.Mode, in.Umask)&0o7777)
		return err
	})
	return fd, err
}
