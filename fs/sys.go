// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// The wrappers in this file add the flags that keep a call from leaving the backing tree (O_NOFOLLOW) or from leaking a
// descriptor to a child (O_CLOEXEC), so that no caller can forget them.

// errno turns an error from a system call into the errno that goes back to the kernel.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return syscall.EIO
}

// openPath opens a name in a directory for no more than finding it: O_PATH opens anything, devices and FIFOs too,
// without a side effect. Symlink-safe: O_NOFOLLOW opens a symbolic link itself.
func openPath(dirfd int, name string) (int, error) {
	return retryEINTR(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// pathOfFile opens the very inode that fd has open, O_PATH.
func pathOfFile(fd int) (int, error) {
	return unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// openDir opens the directory that fd (O_PATH) stands for, for reading.
func openDir(fd int) (int, error) {
	return retryEINTR(func() (int, error) {
		return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// reopen opens the very inode that fd (O_PATH, a regular file) stands for. Going through /proc/self/fd is symlink-safe:
// it is a jump to an inode, not a walk.
func (fs *FS) reopen(fd int, flags int) (int, error) {
	flags &^= unix.O_NOFOLLOW | unix.O_CREAT | unix.O_EXCL | unix.O_NONBLOCK
	return retryEINTR(func() (int, error) {
		return unix.Openat(fs.procFd, fdName(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
}

func fdName(fd int) string { return strconv.Itoa(fd) }

// procPath is a path to the inode behind fd, for calls that know no AT_EMPTY_PATH.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func retryEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// fstat works on O_PATH descriptors too.
func fstat(fd int, st *syscall.Stat_t) error { return syscall.Fstat(fd, st) }

// fstatat is fstat of a name in a directory, of a symbolic link itself too.
func fstatat(dirfd int, name string, st *syscall.Stat_t) error {
	return unix.Fstatat(dirfd, name, (*unix.Stat_t)(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW)
}

// fileHandle asks for the handle by which open_by_handle_at(2) finds the inode again. The zero FileHandle means that
// the file system has none, or a longer one than a state record holds.
func fileHandle(fd int) state.FileHandle {
	var buf struct {
		size uint32
		typ  int32
		data [state.MaxHandle]byte
	}
	buf.size = state.MaxHandle
	var mountID int32
	_, _, e := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&mountID)), unix.AT_EMPTY_PATH, 0)
	if e != 0 || buf.size > state.MaxHandle {
		return state.FileHandle{}
	}
	return state.FileHandle{Type: buf.typ, Bytes: append([]byte(nil), buf.data[:buf.size]...)}
}

var empty = [1]byte{}

// openHandle opens an inode by its handle, O_PATH. mountFd is a real (not O_PATH) descriptor on its file system. The
// error is ESTALE when the file is gone.
func openHandle(mountFd int, h state.FileHandle) (int, error) {
	return unix.OpenByHandleAt(mountFd, unix.NewFileHandle(h.Type, h.Bytes), unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW)
}

// plainName says whether a name is one component that means itself. The kernel sends no other, but what holds the
// backing tree together does not rest on that.
func plainName(name string) bool {
	if name == "" || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}
