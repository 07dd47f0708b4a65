// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReflinkAttr is an extended attribute of every file of a view, for programs that copy images: "1" where
// copy_file_range(2) within the file's own file system shares blocks instead of copying them, else "0". The kernel's
// FUSE client has no FICLONE, so nothing else tells. It is read-only and not listed; reading it needs no right to the
// file (namespace "system", see xattr(7)).
const ReflinkAttr = "system.imgward.reflink"

// reflinks remembers which backing file systems share blocks. The zero value knows of none.
type reflinks struct {
	mu    sync.Mutex
	known map[uint16]bool // by index in mounts
}

// on says whether the file system with this directory (not O_PATH) shares blocks, by trying it with two files that
// never get a name. The errno says why that could not be tried: ENOSPC, EROFS.
func (r *reflinks) on(index uint16, dir int) (bool, syscall.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if yes, ok := r.known[index]; ok {
		return yes, 0
	}
	yes, err := tryReflink(dir)
	if err != nil {
		return false, errno(err)
	}
	if r.known == nil {
		r.known = map[uint16]bool{}
	}
	r.known[index] = yes
	return yes, 0
}

func tryReflink(dir int) (bool, error) {
	src, err := tempFile(dir)
	if err == unix.EOPNOTSUPP {
		return false, nil // no O_TMPFILE; file systems with reflinks have it
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(src)
	dst, err := tempFile(dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(dst)
	if _, err := unix.Pwrite(src, make([]byte, 64<<10), 0); err != nil {
		return false, err
	}
	switch err := unix.IoctlFileClone(dst, src); err {
	case nil:
		return true, nil
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL, unix.ENOSYS:
		return false, nil
	default:
		return false, err
	}
}

func tempFile(dir int) (int, error) {
	return retryEINTR(func() (int, error) {
		return unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
}

// reflinkAttr reads ReflinkAttr.
func (fs *FS) reflinkAttr(nodeid uint64, dest []byte) (uint32, syscall.Errno) {
	n, no := fs.nodes.get(nodeid)
	if no != 0 {
		return 0, no
	}
	index, dir, ok := fs.nodes.mounts.of(n.key.Dev)
	if !ok {
		return 0, syscall.ENODATA
	}
	yes, no := fs.reflinks.on(index, dir)
	switch {
	case no != 0:
		return 0, no
	case len(dest) == 0: // asked for the size
	case yes:
		dest[0] = '1'
	default:
		dest[0] = '0'
	}
	return 1, 0
}
