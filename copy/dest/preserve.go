// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
)

// Preserve gives f the owner, mode, times, extended attributes and ACLs of the source. What the caller may not set is
// reported and left out, as cp -p does.
func Preserve(f *os.File, src *source.Source, log *slog.Logger) error {
	st := src.Stat
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	uid, gid := st.Uid, st.Gid
	if u, g, ok := rememberedOwner(src.File); ok {
		uid, gid = u, g
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
		log.Warn("owner not preserved", "file", f.Name(), "err", err)
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil { // after chown, which clears the setuid bits
		return fmt.Errorf("set mode: %w", err)
	}
	copyXattrs(f, src.File, log)
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// inherit gives f, which is going to replace old, its owner, mode, ACL and other attributes, so that whoever could use
// the name before still can.
func inherit(f, old *os.File, log *slog.Logger) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(f.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("keep the owner of the replaced file: %w", err)
	}
	if err := unix.Fchmod(int(f.Fd()), st.Mode&0o7777); err != nil {
		return fmt.Errorf("keep the mode of the replaced file: %w", err)
	}
	copyXattrs(f, old, log)
	return nil
}

// disown makes a file that libvirt and QEMU wrote the caller's own.
func disown(f *os.File, perm os.FileMode, log *slog.Logger) {
	names, _ := listXattrs(f)
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.libvirt.") {
			_ = unix.Fremovexattr(int(f.Fd()), name)
		}
	}
	if err := errors.Join(f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(perm)); err != nil {
		log.Warn("the copy keeps the owner that libvirt gave it", "err", err)
	}
}

// neverCopied are the attributes that belong to one inode and its domain: libvirt's memory of the labels it has to
// restore, and the label that a running domain confines its disks with. A copy that carried them would be "restored" to
// another file's owner, or be readable by that domain.
func neverCopied(name string) bool {
	return strings.HasPrefix(name, "trusted.libvirt.") || name == "security.selinux" || name == "security.apparmor"
}

func copyXattrs(to, from *os.File, log *slog.Logger) {
	names, err := listXattrs(from)
	if err != nil {
		log.Warn("extended attributes not preserved", "file", to.Name(), "err", err)
		return
	}
	for _, name := range names {
		if neverCopied(name) {
			continue
		}
		value, err := getXattr(from, name)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value, 0)
		}
		if err != nil {
			log.Warn("extended attribute not preserved", "file", to.Name(), "name", name, "err", err)
		}
	}
}

// maxXattrs is XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h.
const maxXattrs = 64 << 10

func listXattrs(f *os.File) ([]string, error) {
	b := make([]byte, maxXattrs)
	n, err := unix.Flistxattr(int(f.Fd()), b)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(b[:n]), "\x00"), "\x00"), nil
}

func getXattr(f *os.File, name string) ([]byte, error) {
	b := make([]byte, maxXattrs)
	n, err := unix.Fgetxattr(int(f.Fd()), name, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// rememberedOwner is whom libvirt gives the image back to when its domain stops ("+uid:+gid", written by
// virSecurityDACRememberLabel): the owner of a disk in use is QEMU's user for the time being only.
func rememberedOwner(f *os.File) (uid, gid uint32, ok bool) {
	v, err := getXattr(f, "trusted.libvirt.security.dac")
	if err != nil {
		return 0, 0, false
	}
	_, err = fmt.Sscanf(strings.TrimRight(string(v), "\x00"), "+%d:+%d", &uid, &gid)
	return uid, gid, err == nil
}
