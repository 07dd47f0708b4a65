// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// Fallocate reserves, punches, zeroes, collapses or inserts.
func (fs *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	_, no = fs.exactlyOnce(&in.InHeader, []uint64{sizeOf(h.fd)}, func(before []uint64) bool {
		return wasShifted(in, before[0], sizeOf(h.fd))
	}, func() (int, syscall.Errno) { return 0, fs.fallocate(cancel, in, h) })
	return fuse.Status(no)
}

func (fs *FS) fallocate(cancel <-chan struct{}, in *fuse.FallocateIn, h *handle) syscall.Errno {
	_, unlock, no := fs.permit(cancel, &in.InHeader, victim{n: h.node, op: guard.OpFallocate})
	if no != 0 {
		return no
	}
	defer unlock()
	err := callerOf(&in.InHeader).killing(false, h.fd, func() error {
		return unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length))
	})
	return errno(err)
}

// wasShifted says whether a predecessor took a range out or put one in: done twice, these two would lose data. The other
// modes may be done twice, for nobody can have written since: the kernel holds the inode locked.
func wasShifted(in *fuse.FallocateIn, before, now uint64) bool {
	switch {
	case in.Mode&unix.FALLOC_FL_COLLAPSE_RANGE != 0:
		return now < before
	case in.Mode&unix.FALLOC_FL_INSERT_RANGE != 0:
		return now >= before+in.Length
	}
	return false
}

func sizeOf(fd int) uint64 {
	var st syscall.Stat_t
	if fstat(fd, &st) != nil {
		return 0
	}
	return uint64(st.Size)
}

// CopyFileRange copies within the backing file system, which may share the blocks (reflink) or leave the copying to a
// server.
func (fs *FS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, no := fs.handles.get(in.FhIn)
	if no != 0 {
		return 0, fuse.Status(no)
	}
	to, no := fs.handles.get(in.FhOut)
	if no != 0 {
		return 0, fuse.Status(no)
	}
	n, no := fs.exactlyOnce(&in.InHeader, nil, nil, func() (int, syscall.Errno) { return fs.copyRange(cancel, in, from, to) })
	return uint32(n), fuse.Status(no)
}

func (fs *FS) copyRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn, from, to *handle) (int, syscall.Errno) {
	_, unlock, no := fs.permit(cancel, &in.InHeader, victim{n: to.node, op: guard.OpCopyInto})
	if no != 0 {
		return 0, no
	}
	unlock() // a long copy must not keep others from opening the file
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	var n int
	err := callerOf(&in.InHeader).killing(false, to.fd, func() (err error) {
		n, err = unix.CopyFileRange(from.fd, &offIn, to.fd, &offOut, int(in.Len), int(in.Flags))
		return err
	})
	if err != nil {
		return 0, errno(err)
	}
	return n, 0
}

// StatFs is statfs(2).
func (fs *FS) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	_, fd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(fd, &st); err != nil {
		return fuse.ToStatus(err)
	}
	out.FromStatfsT(&st)
	return fuse.OK
}
