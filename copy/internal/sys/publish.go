// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// TempFile creates a file without a name in directory dir (O_TMPFILE): whatever happens to us, nothing stays behind.
// Messages call it what it is to be.
func TempFile(dir *os.File, what string, perm os.FileMode) (*os.File, error) {
	var fd int
	err := onFile("create a file in", dir, func(dirfd int) (err error) {
		fd, err = unix.Openat(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(perm))
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), what), nil
}

// LinksUnnamed reports whether an unnamed file in dir can take a name later, for which whatever kills this process leaves
// nothing behind. It is known of the disk file systems, and tried elsewhere: a FUSE file system may create such files and
// then refuse the link (EXDEV), when the whole copy has been written. A view does both.
func LinksUnnamed(dir *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) == nil {
		switch st.Type {
		case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
			return true
		}
	}
	f, err := TempFile(dir, dir.Name(), 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	temp := ".imgcp-" + rand.Text()
	return LinkNew(f, dir, temp) == nil && Unlink(dir, temp) == nil
}

// CreateAt creates name in dir, which must not exist (O_EXCL; a dangling symbolic link counts as existing).
func CreateAt(dir *os.File, name string, perm os.FileMode) (*os.File, error) {
	return OpenAt(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
}

// OpenAt opens name in dir and does not follow a symbolic link there.
func OpenAt(dir *os.File, name string, flags int, perm os.FileMode) (*os.File, error) {
	path := dir.Name() + "/" + name
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm))
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// LinkNew gives f, a file without a name, the name name in dir. It never replaces anything: EEXIST.
func LinkNew(f, dir *os.File, name string) error {
	old := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	return onFile("link into", dir, func(dirfd int) error {
		return unix.Linkat(unix.AT_FDCWD, old, dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// RenameNew renames old to name within dir and never replaces anything: EEXIST. Where the file system has no
// RENAME_NOREPLACE it makes a hard link, which is as strict, and removes the old name.
func RenameNew(dir *os.File, old, name string) error {
	return onFile("rename in", dir, func(fd int) error {
		err := unix.Renameat2(fd, old, fd, name, unix.RENAME_NOREPLACE)
		if err != unix.EINVAL && err != unix.ENOSYS {
			return err
		}
		if err := unix.Linkat(fd, old, fd, name, 0); err != nil {
			return err
		}
		return unix.Unlinkat(fd, old, 0)
	})
}

// ErrNotPutBack: a file that was not to be replaced lost its name all the same. It must not be removed under the other one.
var ErrNotPutBack = errors.New("a file lost its name")

// ReplaceIf puts temp in the place of name within dir, and removes what was there, if may allows that when it has been
// taken away already and nobody can come between: it is called with the path where that lies then. Otherwise everything is
// put back. Where the file system cannot exchange two names, may is asked just before the rename.
//
// A file that takes the name in between, and loses it to what is put back, is not removed: ErrNotPutBack.
func ReplaceIf(dir *os.File, temp, name string, may func(old string) error) error {
	exchange := func() error {
		return onFile("exchange names in", dir, func(fd int) error {
			return unix.Renameat2(fd, temp, fd, name, unix.RENAME_EXCHANGE)
		})
	}
	mine, err := inode(dir, temp)
	if err != nil {
		return err
	}
	err = exchange()
	if Unsupported(err) {
		if err := may(filepath.Join(dir.Name(), name)); err != nil {
			return err
		}
		return onFile("rename in", dir, func(fd int) error { return unix.Renameat(fd, temp, fd, name) })
	}
	if err != nil {
		return err
	}
	if err := may(filepath.Join(dir.Name(), temp)); err != nil {
		back := exchange()
		if now, statErr := inode(dir, temp); back == nil && (statErr != nil || now != mine) {
			back = errors.New("it came there meanwhile")
		}
		if back != nil {
			return fmt.Errorf("%w; and %w: it is called %s now: %w", err, ErrNotPutBack, temp, back)
		}
		return err
	}
	return Unlink(dir, temp)
}

// inode is its number.
func inode(dir *os.File, name string) (ino uint64, err error) {
	err = onFile("stat in", dir, func(fd int) error {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		ino = st.Ino
		return err
	})
	return ino, err
}

// Unlink removes name from dir; a name that is not there is no error.
func Unlink(dir *os.File, name string) error {
	return onFile("remove from", dir, func(fd int) error {
		err := unix.Unlinkat(fd, name, 0)
		if err == unix.ENOENT {
			return nil
		}
		return err
	})
}

// Flush has the file system do what it does at close(2) (->flush), and returns its error: NFS and FUSE may report it there, for
// the last time, that writes have failed. Locks stay.
func Flush(f *os.File) error {
	return onFile("close", f, func(fd int) error {
		again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Close(again); err != unix.EINTR { // the descriptor is gone all the same
			return err
		}
		return nil
	})
}
