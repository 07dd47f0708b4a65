// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// An ioctl forwarded blindly would run with root's rights on the backing file system (FS_IOC_SHUTDOWN, FITRIM, resize),
// so only these few pass: the inode flags of chattr(1) and lsattr(1) and the file's generation. The kernel has checked
// the caller's right to set flags (ownership; CAP_LINUX_IMMUTABLE) before it asks.
const (
	fsIocGetFlags   = 0x80086601
	fsIocSetFlags   = 0x40086602
	fsIocGetVersion = 0x80087601
	fsIocGetXattr   = 0x801c581f
	fsIocSetXattr   = 0x401c5820
)

// Flags that keep a file from being written, as bits of FS_IOC_SETFLAGS and of struct fsxattr.
const (
	flagsFrozen  = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	xflagsFrozen = 0x08 | 0x10 // FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND
)

// Ioctl handles the allowed few. ENOTTY: any other.
func (fs *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	// The kernel's own calls for lsattr and chattr carry an int, whatever size the command number claims.
	var arg [32]byte
	switch in.Cmd {
	case fsIocGetFlags, fsIocGetVersion, fsIocGetXattr:
		if err := ioctl(h.fd, in.Cmd, &arg); err != nil {
			return fuse.ToStatus(err)
		}
		copy(outbuf, arg[:])
		return fuse.OK
	case fsIocSetFlags, fsIocSetXattr:
		if len(inbuf) < 4 || len(inbuf) > len(arg) {
			return fuse.EINVAL
		}
		copy(arg[:], inbuf)
		return fuse.Status(fs.setFlags(cancel, in, h, &arg))
	}
	return fuse.Status(syscall.ENOTTY)
}

// setFlags sets inode flags. Making an image immutable or append-only would stop its VM.
func (fs *FS) setFlags(cancel <-chan struct{}, in *fuse.IoctlIn, h *handle, arg *[32]byte) syscall.Errno {
	flags := binary.NativeEndian.Uint32(arg[:])
	freezes := in.Cmd == fsIocSetFlags && flags&flagsFrozen != 0 || in.Cmd == fsIocSetXattr && flags&xflagsFrozen != 0
	if freezes {
		_, unlock, no := fs.permit(cancel, &in.InHeader, victim{n: h.node, op: guard.OpSetFlags})
		if no != 0 {
			return no
		}
		defer unlock()
	}
	if err := ioctl(h.fd, in.Cmd, arg); err != nil {
		return errno(err)
	}
	// The kernel does not know that this has moved ctime.
	fs.srv.InodeNotify(h.node.id, -1, 0)
	return 0
}

func ioctl(fd int, cmd uint32, arg *[32]byte) error {
	_, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
	if no != 0 {
		return no
	}
	return nil
}
