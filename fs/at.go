// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// place is where a name stands in the backing tree: the one choke point that turns (node, name) into (descriptor, name).
// Every operation on a name gets it from FS.at; one that takes a name away, or puts something in its place, gets it
// from FS.doomed, which asks the guard.
type place struct {
	parent  *node
	dirfd   int // O_PATH
	name    string
	release func()
}

// at finds the place of a name. Symlink-safe: the name is a single component, and every call on it is given O_NOFOLLOW
// or its like. ESTALE: the directory is gone. EINVAL: the name is not a single component.
func (fs *FS) at(parent uint64, name string) (place, syscall.Errno) {
	if !plainName(name) {
		return place{}, syscall.EINVAL
	}
	n, fd, release, no := fs.nodes.byID(parent)
	if no != 0 {
		return place{}, no
	}
	return place{parent: n, dirfd: fd, name: name, release: release}, 0
}

// path is the place's name relative to the view's root.
func (fs *FS) path(p place) func() string {
	return func() string { return path.Join(fs.relative(p.dirfd), p.name) }
}

// doomed is the file whose name an operation takes away.
type doomed struct {
	place
	n *node // nil where there is no such file
	// found is the file as it was found.
	found syscall.Stat_t
	// held are nodes that only this operation holds, to be forgotten when it is released.
	held []uint64
}

// doom finds the place of a name and what stands there. The caller must release it.
func (fs *FS) doom(parent uint64, name string) (*doomed, syscall.Errno) {
	p, no := fs.at(parent, name)
	if no != 0 {
		return nil, no
	}
	d := &doomed{place: p}
	fd, err := openPath(p.dirfd, name)
	if err == unix.ENOENT {
		return d, 0
	}
	if err == nil {
		d.n, no = fs.rememberFd(fd, p, &d.found)
	} else {
		no = errno(err)
	}
	if no != 0 {
		p.release()
		return nil, no
	}
	d.held = append(d.held, d.n.id)
	d.release = func() {
		for _, id := range d.held {
			fs.nodes.forget(id, 1)
		}
		p.release()
	}
	return d, 0
}

// rememberFd makes a node of an O_PATH descriptor, which it takes over, and fills in st.
func (fs *FS) rememberFd(fd int, p place, st *syscall.Stat_t) (*node, syscall.Errno) {
	if err := fstat(fd, st); err != nil {
		unix.Close(fd)
		return nil, errno(err)
	}
	return fs.nodes.remember(fd, st, p.parent, p.name)
}

// victims is what the guard is to be asked about, if op befalls the file.
func (fs *FS) victims(d *doomed, op guard.Op) ([]victim, syscall.Errno) {
	switch {
	case d.n == nil:
		return nil, 0
	case d.n.regular():
		return []victim{{n: d.n, op: op, path: fs.path(d.place)}}, 0
	case d.n.dir() && op == guard.OpRename:
		return fs.below(d)
	}
	return nil, 0
}

// pathOf is a name of the node relative to the view's root.
func (fs *FS) pathOf(n *node) string {
	fd, release, no := fs.nodes.acquire(n)
	if no != 0 {
		return ""
	}
	defer release()
	return fs.relative(fd)
}

// relative is the path, below the view's root, of what fd stands for. The backing tree is a mount of its own that is
// attached nowhere, so the kernel gives paths that start at its root.
func (fs *FS) relative(fd int) string {
	p, err := os.Readlink(procPath(fd))
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimSuffix(p, " (deleted)"), "/")
}

func callerOf(in *fuse.InHeader) caller {
	return caller{uid: in.Uid, gid: in.Gid, tid: in.Pid}
}
