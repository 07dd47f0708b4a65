package viewfs

import (
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// ruledBelow lists the images below a directory that the policy protects whether anybody uses them or not. Rules go by
// path: renamed, the directory would take them out of reach of theirs. It walks only where there is such a rule.
func (fs *FS) ruledBelow(d *doomed) []victim {
	ruled := fs.guard.Ruled(fs.ctx)
	if ruled == nil {
		return nil
	}
	var vs []victim
	fs.eachFile(d.dirfd, d.name, fs.path(d.place)(), maxDepth, func(name string, st *unix.Stat_t) {
		if !ruled(name, guard.StatID(st)) {
			return
		}
		if n := fs.nodeAt(name); n != nil {
			d.held = append(d.held, n.id)
			vs = append(vs, victim{n: n, op: guard.OpRenameDir, path: func() string { return name }})
		}
	})
	return vs
}

// maxDepth is how deep directories may be nested to be walked: deeper than any whose path can be named (PATH_MAX).
const maxDepth = 2048

// eachFile calls f for all regular files below a directory of the backing tree, with their paths. Symlink-safe: each step
// is one name, O_NOFOLLOW. What cannot be read is left out, as what is made or moved the while.
func (fs *FS) eachFile(dirfd int, name, dir string, depth int, f func(path string, st *unix.Stat_t)) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	list := os.NewFile(uintptr(fd), dir)
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		fs.log.Warn("a directory that is to be renamed cannot be read", "path", dir, "error", err)
	}
	for _, n := range names {
		var st unix.Stat_t
		if unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			f(path.Join(dir, n), &st)
		case syscall.S_IFDIR:
			if depth == 0 {
				continue
			}
			fs.eachFile(fd, n, path.Join(dir, n), depth-1, f)
		}
	}
}
