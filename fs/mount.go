// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
	"imgward/guard"
)

// Options are how a view is mounted.
type Options struct {
	Mountpoint  string // absolute, free of symbolic links
	Backing     string // the directory to show; usually the mountpoint itself
	Passthrough bool
	Flags       []string // mount(8)'s own: ro, nosuid, nodev, noexec, noatime, …
}

// Errors of mounting that callers tell apart.
var (
	ErrIsView = errors.New("is already a view")
	ErrStale  = errors.New("is a dead mount: its daemon is gone")
)

// flagBits are mount(8)'s flags as mount(2)'s bits. "rw" and its like take a bit away.
var flagBits = map[string]struct {
	bit uintptr
	off bool
}{
	"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
	"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
	"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
	"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true},
	"nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {unix.MS_DIRSYNC, false},
}

// KnownFlag says whether a mount option is one of mount(8)'s that the view can take.
func KnownFlag(name string) bool {
	_, ok := flagBits[name]
	return ok
}

// cloneTree makes the backing tree: a recursive copy of the mounts at dir, attached nowhere. Whatever is mounted over
// dir later, the view included, it keeps showing what was there before.
func cloneTree(dir string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, fmt.Errorf("take hold of %s: %w", dir, explainClone(err))
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// setAtime gives the backing tree's mounts, which are the view's own, the options about times of access: FUSE has none, it is
// the file below that is read.
func setAtime(tree *os.File, flags []string) error {
	var attr unix.MountAttr
	for _, name := range flags {
		kind, isKind := map[string]uint64{
			"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME, "norelatime": unix.MOUNT_ATTR_STRICTATIME,
			"relatime": unix.MOUNT_ATTR_RELATIME, "atime": unix.MOUNT_ATTR_RELATIME, "nostrictatime": unix.MOUNT_ATTR_RELATIME,
		}[name]
		switch {
		case isKind:
			attr.Attr_clr |= unix.MOUNT_ATTR__ATIME
			attr.Attr_set = attr.Attr_set&^unix.MOUNT_ATTR__ATIME | kind
		case name == "nodiratime":
			attr.Attr_set |= unix.MOUNT_ATTR_NODIRATIME
		case name == "diratime":
			attr.Attr_clr |= unix.MOUNT_ATTR_NODIRATIME
		}
	}
	if attr == (unix.MountAttr{}) {
		return nil
	}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("set the options about times of access: %w (mount_setattr(2) needs Linux 5.12)", err)
	}
	return nil
}

func explainClone(err error) error {
	switch err {
	case unix.ENOSYS:
		return fmt.Errorf("%w (open_tree(2) needs Linux 5.2)", err)
	case unix.EPERM:
		return fmt.Errorf("%w (are you root, with CAP_SYS_ADMIN?)", err)
	}
	return err
}

// openDevice opens a new FUSE connection.
func openDevice() (*os.File, error) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR|syscall.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("%w: the kernel has no FUSE here (modprobe fuse?)", err)
	}
	return dev, err
}

// mountView mounts the connection dev. By default the view has the flags of what it shows, and what protects of those of the
// file systems below it: a view has one set for all.
func mountView(dev, tree *os.File, o *Options) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(tree.Fd()), &st); err != nil {
		return fmt.Errorf("statfs %s: %w", o.Backing, err)
	}
	flags := inherited(uint64(st.Flags)) | restrictedBelow(o.Backing)
	for _, name := range o.Flags {
		f, ok := flagBits[name]
		if !ok {
			return fmt.Errorf("unknown mount option %q", name)
		}
		if f.off {
			flags &^= f.bit
		} else {
			flags |= f.bit
		}
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d",
		dev.Fd(), maxRequest)
	if err := unix.Mount(o.Backing, o.Mountpoint, FSType, flags, data); err != nil {
		return fmt.Errorf("mount the view on %s: %w", o.Mountpoint, err)
	}
	return nil
}

// inherited turns statfs's flags (ST_*) into mount's.
func inherited(st uint64) uintptr {
	var flags uintptr
	for _, p := range [][2]uintptr{
		{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC}, {unix.ST_NOATIME, unix.MS_NOATIME}, {unix.ST_NODIRATIME, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, unix.MS_RELATIME},
	} {
		if uintptr(st)&p[0] != 0 {
			flags |= p[1]
		}
	}
	return flags
}

// restrictedBelow are the flags against set-user-id programs and device nodes that any file system below a directory has.
func restrictedBelow(dir string) (flags uintptr) {
	t, err := mounttable.Now()
	if err != nil {
		return unix.MS_NOSUID | unix.MS_NODEV
	}
	for _, m := range t.All() {
		if m.Mountpoint == dir || !guard.Within(m.Mountpoint, dir) {
			continue
		}
		for _, o := range strings.Split(m.Options, ",") {
			if o == "nosuid" || o == "nodev" {
				flags |= flagBits[o].bit
			}
		}
	}
	return flags
}

// MountAt is the topmost mount on a directory, nil if it is not a mount point. It reads the mount table only: asking
// the directory itself could wait for a dead daemon.
func MountAt(dir string) (*mounttable.Mount, error) {
	t, err := mounttable.Now()
	if err != nil {
		return nil, err
	}
	return t.Topmost(dir), nil
}

// Dead says whether a FUSE mount has lost its daemon. Its attributes may still be in the kernel's memory: statfs is not.
func Dead(mountpoint string) bool {
	var st unix.Statfs_t
	return unix.Statfs(mountpoint, &st) == unix.ENOTCONN
}
