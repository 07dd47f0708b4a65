// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bytes"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Extended attributes go through /proc/self/fd: an O_PATH descriptor has no f*xattr(2), and the jump through the link
// does not follow a symbolic link behind it. Nobody is refused anything here: libvirt keeps trusted.libvirt.* on the
// disks of running VMs.

// withPath runs f on a path to the request's inode.
func (fs *FS) withPath(in *fuse.InHeader, f func(path string) error) error {
	_, fd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return no
	}
	defer release()
	return f(procPath(fd))
}

// GetXAttr reads an attribute. ERANGE: it is larger than dest. ENODATA: there is none.
func (fs *FS) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (size uint32, code fuse.Status) {
	if attr == ReflinkAttr {
		size, no := fs.reflinkAttr(in.NodeId, dest)
		return size, fuse.Status(no)
	}
	if attr == aliveAttr {
		fs.passTables()
		return 0, fuse.ENODATA
	}
	err := fs.withPath(in, func(path string) error {
		n, err := unix.Getxattr(path, attr, dest)
		size = uint32(max(n, 0))
		return err
	})
	if err == unix.ENODATA && attr == "security.selinux" && !kernelHasSELinux() {
		err = unix.EOPNOTSUPP
	}
	return size, fuse.ToStatus(err)
}

// kernelHasSELinux says whether labels mean anything. Where they do not, one that is not there is EOPNOTSUPP, not ENODATA:
// then ls asks once for a directory, and not for each file, which took it a third of its time.
var kernelHasSELinux = sync.OnceValue(func() bool {
	list, err := os.ReadFile("/proc/filesystems")
	return err != nil || bytes.Contains(list, []byte("selinuxfs"))
})

// ListXAttr lists the names of attributes. Those of the trusted namespace are for root's eyes, as natively.
func (fs *FS) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (size uint32, code fuse.Status) {
	err := fs.withPath(in, func(path string) error {
		list, err := listXattr(path)
		if err != nil {
			return err
		}
		if in.Uid != 0 {
			list = withoutTrusted(list)
		}
		size = uint32(len(list))
		if len(dest) == 0 {
			return nil
		}
		if len(list) > len(dest) {
			return syscall.ERANGE
		}
		copy(dest, list)
		return nil
	})
	return size, fuse.ToStatus(err)
}

func listXattr(path string) ([]byte, error) {
	for {
		n, err := unix.Listxattr(path, nil)
		if err != nil || n == 0 {
			return nil, err
		}
		list := make([]byte, n)
		n, err = unix.Listxattr(path, list)
		if err == unix.ERANGE {
			continue // one was added in between
		}
		return list[:max(n, 0)], err
	}
}

func withoutTrusted(list []byte) []byte {
	var kept []byte
	for _, name := range bytes.SplitAfter(list, []byte{0}) {
		if !bytes.HasPrefix(name, []byte("trusted.")) {
			kept = append(kept, name...)
		}
	}
	return kept
}

// SetXAttr sets an attribute. An ACL set by the unprivileged clears the set-gid bit, unless they are in the file's
// group: their credentials tell. EEXIST, ENODATA: the flags asked for a new one, or for an old one.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	set := func(path string) error { return unix.Setxattr(path, attr, data, int(in.Flags)) }
	if in.Flags&unix.XATTR_CREATE != 0 {
		create := set
		set = func(path string) error {
			return fs.flip(&in.InHeader, path, attr, syscall.EEXIST, func() error { return create(path) })
		}
	}
	err := fs.withPath(&in.InHeader, func(path string) error {
		if attr != "system.posix_acl_access" {
			return set(path)
		}
		// Whether the caller may do it has been checked by the kernel.
		return callerOf(&in.InHeader).asGroups(func() error { return set(path) })
	})
	return fuse.ToStatus(err)
}

// RemoveXAttr removes an attribute. ENODATA: there is none.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	return fuse.ToStatus(fs.withPath(in, func(path string) error {
		return fs.flip(in, path, attr, syscall.ENODATA, func() error { return unix.Removexattr(path, attr) })
	}))
}

// flip runs a deed that fails with already if the attribute is what it would make of it, present or absent. If it was
// not so when a predecessor began the same request, that one has done it.
func (fs *FS) flip(in *fuse.InHeader, path, attr string, already syscall.Errno, deed func() error) error {
	state := uint64(already) // as it was
	if _, err := unix.Getxattr(path, attr, nil); (err == nil) != (already == syscall.EEXIST) {
		state = 0
	}
	_, no := fs.exactlyOnce(in, []uint64{state}, func(before []uint64) bool {
		return before[0] == 0 && state != 0
	}, func() (int, syscall.Errno) { return 0, errno(deed()) })
	if no == 0 {
		return nil
	}
	return no
}
