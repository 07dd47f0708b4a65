// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
	"imgward/guard"
)

// exposeOption is the mount option that shows the directory below the view once more, read-only. A backup that stays on one
// file system passes by the view, which is one of its own; there it finds the images, on the file system that they are on.
const exposeOption = "expose-backing="

// exposed is where that is to be; empty: nowhere.
func (f *Flags) exposed() string {
	for _, o := range f.Options {
		if dir, ok := strings.CutPrefix(o, exposeOption); ok {
			return dir
		}
	}
	return ""
}

// expose mounts it, before the view is there, and returns how that is undone. Private, for otherwise the view would show up
// over it as well.
func (f *Flags) expose(mountpoint string) (undo func(), err error) {
	dir := f.exposed()
	if dir == "" {
		return func() {}, nil
	}
	if guard.Within(dir, mountpoint) {
		return nil, UsageError{fmt.Errorf("%s%s: it would be inside the view", exposeOption, dir)}
	}
	if already, err := isExposed(f.Backing, dir); already || err != nil {
		return func() {}, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, f.Backing, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: f.Backing, Err: err}
	}
	defer unix.Close(tree)
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE,
	})
	if err == nil {
		err = unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return nil, fmt.Errorf("expose %s on %s: %w (mount_setattr(2) needs Linux 5.12)", f.Backing, dir, err)
	}
	return func() { Conceal(dir) }, nil
}

// isExposed says whether a directory of the backing tree's is mounted there already.
func isExposed(backing, dir string) (bool, error) {
	t, err := mounttable.Now()
	if err != nil {
		return false, err
	}
	there, home := t.Topmost(dir), t.At(backing)
	return there != nil && home != nil && mounttable.Device(there) == mounttable.Device(home) &&
		there.Root == mounttable.Inside(home, backing) && mounttable.ReadOnly(there), nil
}

// Conceal takes away what expose has mounted. Whoever reads there reads on.
func Conceal(dir string) {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		fmt.Fprintf(os.Stderr, "imgward: umount %s: %v\n", dir, err)
	}
}
