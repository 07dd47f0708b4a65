// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
	"imgward/guard"
)

// CouldTakeIn says why a file system that was mounted below a view cannot become part of it; nil if it can.
func CouldTakeIn(view, m *mounttable.Mount) error {
	switch {
	case m.FSType == "autofs" || m.FSType == "fuse" || strings.HasPrefix(m.FSType, "fuse."):
		return fmt.Errorf("its type is %s", m.FSType)
	case strings.HasPrefix(m.Source, "/dev/loop"):
		return errors.New("it is a loop device's, which will be unmounted again")
	case mounttable.Device(m) == mounttable.Device(view):
		return errors.New("it is the view itself")
	}
	// A view has one set of these for all that it shows.
	has := strings.Split(view.Options, ",")
	for _, flag := range strings.Split(m.Options, ",") {
		if (flag == "nosuid" || flag == "nodev" || flag == "noexec") && !slices.Contains(has, flag) {
			return fmt.Errorf("it is mounted with %s, and the view is not", flag)
		}
	}
	return nil
}

// TakeIn makes the file system that is mounted on dir, below the view on a directory, part of the view's backing tree, and
// takes it away from where it hides the view: from then on it is reached through the view alone. It has to be called in the
// mount namespace that the view was mounted in, by another process than the view's worker, whom it may ask for dir.
//
// Linux before 6.15 attaches nothing to a tree that is attached nowhere (EINVAL). What has been attached stays until the
// view ends, for nothing can be unmounted in such a tree.
func TakeIn(tree int, view, dir string) error {
	at, err := unix.Openat2(tree, strings.TrimPrefix(strings.TrimPrefix(dir, view), "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "open below the view", Path: dir, Err: err}
	}
	defer unix.Close(at)
	mounted, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: dir, Err: explainClone(err)}
	}
	defer unix.Close(mounted)
	// The tree is a peer of what it was copied from, where that is shared: there it would show up as well, below the view.
	for _, fd := range []int{mounted, tree} {
		private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &private); err != nil {
			return &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
		}
	}
	err = unix.MoveMount(mounted, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	switch {
	case err == unix.EINVAL:
		return fmt.Errorf("the kernel does not attach it to the tree below the view (Linux 6.15 does): %w", err)
	case err != nil:
		return &os.PathError{Op: "move_mount", Path: dir, Err: err}
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "umount", Path: dir, Err: err}
	}
	return nil
}

// TakenIn is a file system that was taken in and is to be where it was once the view has gone.
type TakenIn struct {
	dir   string
	mount int
}

// TakeOut makes a mount of what was taken in on a directory, attached nowhere, before the view ends.
func TakeOut(tree int, view, dir string) (*TakenIn, error) {
	rel := strings.TrimPrefix(strings.TrimPrefix(dir, view), "/")
	fd, err := unix.OpenTree(tree, rel, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	return &TakenIn{dir, fd}, nil
}

// Return mounts it where it was.
func (t *TakenIn) Return() error {
	defer unix.Close(t.mount)
	if err := unix.MoveMount(t.mount, "", unix.AT_FDCWD, t.dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "mount again", Path: t.dir, Err: err}
	}
	return nil
}

// Forgotten has the kernel look up a directory of the view again: something has been mounted there in the backing tree.
func (s *Session) Forgotten(rel string) {
	fd, err := s.FS.host.inTree(path.Dir(rel), unix.O_PATH)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	if n := s.FS.nodes.find(guard.StatID(&st)); n != nil {
		_ = s.FS.srv.EntryNotify(n.id, path.Base(rel)) // it would find out within cacheTimeout
	}
}
