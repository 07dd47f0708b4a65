// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"errors"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// below lists the images below a directory that is to be renamed. The errno says why they could not be found.
func (fs *FS) below(d *doomed) ([]victim, syscall.Errno) {
	var vs []victim
	every, err := fs.eachImage(fs.ctx, d.dirfd, d.name, fs.path(d.place)(), func(dirfd int, name, path string, _ guard.ID) error {
		fd, err := openPath(dirfd, name)
		if err != nil {
			return err
		}
		n, no := fs.rememberFd(fd, place{parent: &node{id: rootID}, name: path}, new(syscall.Stat_t))
		if no != 0 {
			return no
		}
		d.held = append(d.held, n.id)
		vs = append(vs, victim{n: n, op: guard.OpRenameDir, path: func() string { return path }})
		return nil
	})
	if every {
		return []victim{{n: d.n, op: guard.OpRenameDir, path: fs.path(d.place), whole: true}}, 0
	}
	if err != nil {
		fs.log.Warn("a directory that is to be renamed cannot be read, and images are in use; refused", "error", err)
	}
	return vs, errno(err)
}

// eachImage calls f for the images below a directory of the backing tree which are in use, or which the policy protects by
// their paths: those would change under the feet of whoever opens them next by name (a VM's next start, a snapshot's
// backing file), or lead out of reach of a rule. every: all that there is counts as in use.
//
// It looks at each file of the directory, for an image has any number of names, and only the inode tells that it is one in
// use. Where nothing is in use, and no rule goes by path, there is nothing to look for.
func (fs *FS) eachImage(ctx context.Context, dirfd int, name, dir string, f func(dirfd int, name, path string, id guard.ID) error) (every bool, err error) {
	used := fs.used(ctx)
	if used[guard.ID{}] {
		return true, nil
	}
	ruled := fs.guard.Ruled(ctx)
	if len(used) == 0 && ruled == nil {
		return false, nil
	}
	return false, eachFile(dirfd, name, dir, func(dirfd int, name, path string, st *unix.Stat_t) error {
		if id := guard.StatID(st); used[id] || ruled != nil && ruled(path, id) {
			return f(dirfd, name, path, id)
		}
		return nil
	})
}

// used says which files are in use, wherever the paths of the evidence lead: a bind mount or a hard link outside of the view
// may be the only one that it has.
func (fs *FS) used(ctx context.Context) map[guard.ID]bool {
	used := map[guard.ID]bool{}
	for id := range fs.guard.InUse(ctx) {
		if id.Dev != guard.BlockDevice {
			used[id] = true
		}
	}
	for _, n := range fs.handles.openNodes() {
		if len(fs.quickUses(ctx, n, "")) > 0 {
			used[n.key] = true
		}
	}
	return used
}

// CheckBelow asks the guard whether a process could rename a directory of the view, with the images below it. Refused, it
// names one that stands against it.
func (fs *FS) CheckBelow(ctx context.Context, dir string, by guard.Process) (v guard.Verdict, image string) {
	v.Allowed = true
	check := func(_ int, _, path string, id guard.ID) error {
		if next := fs.Check(ctx, id, path, guard.OpRenameDir, by); !next.Allowed || next.Audit || next.Exception != 0 {
			v, image = next, path
		}
		if !v.Allowed {
			return errRefused
		}
		return nil
	}
	fd, err := fs.host.inTree(dir, unix.O_PATH)
	if err != nil {
		return v, image
	}
	defer unix.Close(fd)
	if every, _ := fs.eachImage(ctx, fd, ".", dir, check); every {
		_ = check(fd, ".", dir, guard.ID{})
	}
	return v, image
}

// errRefused ends a walk that has its answer.
var errRefused = errors.New("refused")

// eachFile calls f for all regular files below a directory of the backing tree, with where they are and their paths.
// Symlink-safe: each step is one name, O_NOFOLLOW. What is removed or moved the while is left out.
func eachFile(dirfd int, name, dir string, f func(dirfd int, name, path string, st *unix.Stat_t) error) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return unlessMoved(err)
	}
	list := os.NewFile(uintptr(fd), dir)
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return unlessMoved(err)
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err != nil:
		case st.Mode&syscall.S_IFMT == syscall.S_IFREG:
			err = f(fd, name, path.Join(dir, name), &st)
		case st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
			err = eachFile(fd, name, path.Join(dir, name), f)
		}
		if err = unlessMoved(err); err != nil {
			return err
		}
	}
	return nil
}

// unlessMoved drops the errors of what is not there any more.
func unlessMoved(err error) error {
	for _, moved := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE} {
		if errors.Is(err, moved) {
			return nil
		}
	}
	return err
}
