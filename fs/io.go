// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// Reads and writes reach the daemon only where the kernel does not pass them through: no passthrough on this kernel or
// file, or a checked handle.

// Read reads.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, code := fs.read(in, buf)
	return inPlace(n), code
}

func (fs *FS) read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return 0, fuse.Status(no)
	}
	n, err := unix.Pread(h.fd, buf, int64(in.Offset))
	if err == unix.EINVAL && h.mayBuffer(in.Flags, in.Offset, len(buf)) {
		if fd, e := fs.buffered(h); e == nil {
			n, err = unix.Pread(fd, buf, int64(in.Offset))
		}
	}
	if err != nil {
		return 0, fuse.ToStatus(err)
	}
	return n, fuse.OK
}

// cached implements mover.
func (fs *FS) cached(in *fuse.ReadIn) (fd int, ok bool) {
	h, no := fs.handles.get(in.Fh)
	if no != 0 || h.flags&unix.O_DIRECT != 0 {
		return -1, false
	}
	return h.fd, true
}

// inPlace is what was read into the very memory that the answer is written from: nothing is to be copied (loop.go).
type inPlace int

// Size implements fuse.ReadResult.
func (n inPlace) Size() int { return int(n) }

// Bytes implements fuse.ReadResult.
func (n inPlace) Bytes(buf []byte) ([]byte, fuse.Status) { return buf[:n], fuse.OK }

// Readv is what fuse.ProtocolServer asks for.
func (n inPlace) Readv([][]byte) (int, fuse.Status) { return int(n), fuse.OK }

// Done implements fuse.ReadResult.
func (inPlace) Done() {}

// Write writes. Through a checked handle each write is judged by the process that writes, not by the opener: a
// descriptor that libvirtd opened and passed to QEMU writes as QEMU.
func (fs *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return 0, fuse.Status(no)
	}
	if h.mode&state.ModeChecked != 0 {
		_, unlock, no := fs.permit(cancel, &in.InHeader, victim{n: h.node, op: guard.OpWrite})
		if no != 0 {
			return 0, fuse.Status(no)
		}
		unlock()
	}
	return fs.write(h, in, data)
}

// writeUnchecked implements mover.
func (fs *FS) writeUnchecked(in *fuse.WriteIn, data []byte) (uint32, fuse.Status, bool) {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return 0, fuse.Status(no), true
	}
	if h.mode&state.ModeChecked != 0 {
		return 0, 0, false
	}
	n, code := fs.write(h, in, data)
	return n, code, true
}

func (fs *FS) write(h *handle, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	var n int
	write := func() (err error) {
		if in.Flags&unix.O_APPEND != 0 {
			n, err = fs.append(h, in, data)
		} else {
			n, err = fs.pwrite(h, in, data, 0)
		}
		return err
	}
	var err error
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		err = callerOf(&in.InHeader).killing(true, h.fd, write)
	} else {
		err = write()
	}
	if err != nil {
		return 0, fuse.ToStatus(err)
	}
	return uint32(n), fuse.OK
}

// pwrite writes data at its place in the request, skip bytes on; or at the end of the file as it is now, if the caller's
// file is in append mode at this moment (it can be changed with F_SETFL).
func (fs *FS) pwrite(h *handle, in *fuse.WriteIn, data []byte, skip int) (int, error) {
	at := int64(in.Offset) + int64(skip)
	var n int
	var err error
	if appends := in.Flags & unix.O_APPEND; appends == uint32(h.flags&unix.O_APPEND) {
		n, err = unix.Pwrite(h.fd, data, at)
	} else {
		n, err = unix.Pwritev2(h.fd, [][]byte{data}, at, appendFlag(appends))
		if err == unix.EOPNOTSUPP || err == unix.EPERM { // an old kernel; an inode that is append-only (chattr +a)
			n, err = unix.Pwrite(h.fd, data, at)
		}
	}
	if err == unix.EINVAL && h.mayBuffer(in.Flags, uint64(at), len(data)) {
		if fd, e := fs.buffered(h); e == nil {
			n, err = unix.Pwrite(fd, data, at)
		}
	}
	return n, err
}

// Flags of pwritev2(2): one write in append mode, or out of it (Linux 4.16, 6.9).
func appendFlag(appends uint32) int {
	const rwfAppend, rwfNoappend = 0x10, 0x20
	if appends != 0 {
		return rwfAppend
	}
	return rwfNoappend
}

// append writes at the end, once: an attempt of a predecessor's has made the file longer by what it wrote, which may be
// a part, for a process that is killed stops writing. The kernel holds the inode locked, so nobody else appends through
// the view meanwhile.
func (fs *FS) append(h *handle, in *fuse.WriteIn, data []byte) (int, error) {
	size, done := sizeOf(h.fd), uint64(0)
	left := fs.left(&in.InHeader)
	n, no, ok := became(left)
	switch {
	case ok && no != 0:
		return 0, no
	case ok:
		return int(n), nil
	case left != nil:
		before, doneBefore := left.Words[0], left.Words[1]
		if done = doneBefore; size > before {
			done = min(doneBefore+size-before, uint64(len(data)))
		}
	}
	end := fs.begin(&in.InHeader, size, done)
	var err error
	wrote := 0
	if int(done) < len(data) || len(data) == 0 {
		wrote, err = fs.pwrite(h, in, data[done:], int(done))
	}
	if done > 0 && err != nil {
		err = nil // what there is of it is an answer
	}
	if err == nil {
		wrote += int(done)
	}
	end(wrote, errno(err))
	return wrote, err
}

// directFallback is a descriptor without O_DIRECT, for what a caller's O_DIRECT handle cannot do: page-cache writeback
// of a mapping is not always aligned to the device's blocks.
type directFallback struct {
	fd  int
	err error
}

// mayBuffer says that what an O_DIRECT descriptor refused is to be tried without O_DIRECT: our buffer may not be aligned
// where the caller's was, and the caller may have turned O_DIRECT off since (flags are those of now). What the caller itself
// asks for in parts of blocks is refused as natively.
func (h *handle) mayBuffer(flags uint32, offset uint64, size int) bool {
	const sector = 512
	return h.flags&unix.O_DIRECT != 0 && (flags&unix.O_DIRECT == 0 || (offset|uint64(size))%sector == 0)
}

// buffered returns the inode's descriptor without O_DIRECT, opened at first need and closed with the last handle.
func (fs *FS) buffered(h *handle) (int, error) {
	n := h.node
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		return -1, syscall.EBADF
	}
	if a.open.direct == nil {
		d := &directFallback{}
		d.fd, d.err = unix.Openat(fs.procFd, fdName(h.fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
		a.open.direct = d
	}
	return a.open.direct.fd, a.open.direct.err
}

// Fsync flushes a file to its medium.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	return fuse.ToStatus(sync1(h.fd, in.FsyncFlags))
}

// sync1 is fdatasync if the flags say so (FUSE_FSYNC_FDATASYNC), else fsync.
func sync1(fd int, flags uint32) error {
	if flags&1 != 0 {
		return unix.Fdatasync(fd)
	}
	return unix.Fsync(fd)
}

// Flush is a close(2) by one of the descriptors of a handle: the closer's POSIX locks on the file go. Errors that a
// network file system reports at close are passed on.
func (fs *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	fs.unlockOwner(h, in.LockOwner)
	if !fs.remote || !h.writable() {
		return fuse.OK
	}
	dup, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fuse.OK // too many open files is no error of the caller's
	}
	return fuse.ToStatus(unix.Close(dup))
}

// Lseek finds data and holes; the kernel does the other seeks itself.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return fuse.ToStatus(err)
}
