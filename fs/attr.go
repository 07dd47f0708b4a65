// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// GetAttr is stat(2). A handle's own descriptor answers where there is one: its file may have lost its name.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, no := fs.nodes.get(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	fd, release, no := fs.descriptor(n, in.Fh(), in.Flags()&fuse.FUSE_GETATTR_FH != 0)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	return fuse.Status(fs.attr(n, fd, out))
}

func (fs *FS) attr(n *node, fd int, out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil {
		return errno(err)
	}
	fs.fillAttr(&st, &out.Attr)
	out.SetTimeout(n.attrTimeout(st.Mode))
	return 0
}

// descriptor is the handle's, if the request has one that is known, else the node's own (O_PATH).
func (fs *FS) descriptor(n *node, fh uint64, has bool) (int, func(), syscall.Errno) {
	if has {
		if h, no := fs.handles.get(fh); no == 0 {
			return h.fd, func() {}, 0
		}
	}
	return fs.nodes.acquire(n)
}

// Statx is statx(2); the kernel sends it for what GETATTR does not carry, the birth time.
func (fs *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, no := fs.nodes.get(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	fd, release, no := fs.descriptor(n, in.Fh, in.GetattrFlags&fuse.FUSE_GETATTR_FH != 0)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	var sx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|int(in.SxFlags), int(in.SxMask), &sx); err != nil {
		return fuse.ToStatus(err)
	}
	out.Statx.FromStatx(&sx)
	out.Statx.Ino = fs.ino(&syscall.Stat_t{Dev: n.key.Dev, Ino: n.key.Ino})
	out.SetTimeout(n.attrTimeout(n.mode() | uint32(sx.Mode)&0o7777))
	return fuse.OK
}

// SetAttr is chown, chmod, truncate and utimensat. Only the change of size is the guard's business: libvirt relabels
// running disks, and an error there fails a VM's start.
func (fs *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, fd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	if no := fs.setAttr(cancel, n, fd, in); no != 0 {
		return fuse.Status(no)
	}
	return fuse.Status(fs.attr(n, fd, out))
}

func (fs *FS) setAttr(cancel <-chan struct{}, n *node, fd int, in *fuse.SetAttrIn) syscall.Errno {
	const owner, times = fuse.FATTR_UID | fuse.FATTR_GID, fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if in.Valid&(owner|fuse.FATTR_MODE|fuse.FATTR_SIZE|times) == 0 || in.Valid&owner != 0 {
		// chown(-1, -1) arrives as a change of nothing; it still clears set-id bits and updates ctime.
		if err := chown(fd, in); err != nil {
			return errno(err)
		}
	}
	if in.Valid&fuse.FATTR_MODE != 0 {
		if err := unix.Chmod(procPath(fd), in.Mode&0o7777); err != nil {
			return errno(err)
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if no := fs.truncate(cancel, n, fd, in); no != 0 {
			return no
		}
	}
	if in.Valid&times != 0 {
		return errno(utimens(fd, in))
	}
	return 0
}

func chown(fd int, in *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if in.Valid&fuse.FATTR_UID != 0 {
		uid = int(in.Uid)
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		gid = int(in.Gid)
	}
	return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

func utimens(fd int, in *fuse.SetAttrIn) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	set := func(i int, given, now uint32, sec uint64, nsec uint32) {
		switch {
		case in.Valid&given == 0:
		case in.Valid&now != 0:
			ts[i].Nsec = unix.UTIME_NOW
		default:
			ts[i] = unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
		}
	}
	set(0, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	set(1, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
}

// truncate changes a file's size, through the caller's own handle where there is one.
func (fs *FS) truncate(cancel <-chan struct{}, n *node, fd int, in *fuse.SetAttrIn) syscall.Errno {
	_, no := fs.exactlyOnce(&in.InHeader, []uint64{sizeOf(fd)}, func(before []uint64) bool {
		return wasResized(before[0], sizeOf(fd), in.Size)
	}, func() (int, syscall.Errno) { return 0, fs.resize(cancel, n, fd, in) })
	return no
}

func (fs *FS) resize(cancel <-chan struct{}, n *node, fd int, in *fuse.SetAttrIn) syscall.Errno {
	_, unlock, no := fs.permit(cancel, &in.InHeader, victim{n: n, op: guard.OpTruncate})
	if no != 0 {
		return no
	}
	defer unlock()
	size := int64(in.Size)
	resize := func() error { return unix.Truncate(procPath(fd), size) }
	if fh, ok := in.GetFh(); ok {
		if h, no := fs.handles.get(fh); no == 0 && h.writable() {
			resize = func() error { return unix.Ftruncate(h.fd, size) }
		}
	}
	return errno(callerOf(&in.InHeader).killing(in.Valid&fuse.FATTR_KILL_SUIDGID != 0, fd, resize))
}
