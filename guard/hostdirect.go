// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// HostDirect is the Host of programs that serve no view (imgcp, `imgward who`): plain paths of the caller's mount
// namespace.
type HostDirect struct{}

// Lookup implements Host.
func (HostDirect) Lookup(path string) (ID, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Stat(path, &st) }); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return StatID(&st), nil
}

// Open implements Host. The type is looked at through an O_PATH descriptor before anything is opened: opening a FIFO
// would wake its writer, opening a tape would rewind it.
func (HostDirect) Open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	f, err := Reopen(fd)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

// OpenDir implements Host.
func (HostDirect) OpenDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// Reopen opens read-only (O_NONBLOCK, O_CLOEXEC) what an O_PATH descriptor points to: the very inode, whatever its
// name points to by now. EINVAL: it is neither a regular file nor a block device.
func Reopen(fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFBLK {
		return nil, unix.EINVAL
	}
	link := procSelfFD(fd)
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	n, err := unix.Open(link, flags|unix.O_NOATIME, 0) // a look at a header is no use of the file
	if err == unix.EPERM {                             // somebody else's
		n, err = unix.Open(link, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), link), nil
}
