// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Exe is a process's executable.
type Exe struct {
	// Path is where /proc/PID/exe points, as the kernel prints it: with " (deleted)" behind it when the file has been
	// replaced or removed since, and relative to the process's own mount namespace if that is not ours.
	Path     string
	Dev, Ino uint64
	Owner    uint32
}

// deletedSuffix is what the kernel appends to the path of a file without a name (d_path, fs/d_path.c).
const deletedSuffix = " (deleted)"

// Exe reads what a process executes. A kernel thread has none (ENOENT).
func (f FS) Exe(id int) (Exe, error) {
	link := f.path(id, "exe")
	path, err := os.Readlink(link)
	if err != nil {
		return Exe{}, err
	}
	var st unix.Stat_t
	// The link is followed by the kernel to the very inode, even if another file has the name now.
	if _, err := retry(func() (int, error) { return 0, unix.Stat(link, &st) }); err != nil {
		return Exe{}, fmt.Errorf("procfs: stat %s: %w", link, err)
	}
	return Exe{Path: path, Dev: st.Dev, Ino: st.Ino, Owner: st.Uid}, nil
}

// executes says whether the thread still executes this inode. The path is not looked at: where it points may change (a
// package upgrade renames a new file over it), what runs does not.
func (f FS) executes(id int, exe Exe) bool {
	var st unix.Stat_t
	_, err := retry(func() (int, error) { return 0, unix.Stat(f.path(id, "exe"), &st) })
	return err == nil && st.Dev == exe.Dev && st.Ino == exe.Ino
}

// matches says whether the executable is one that the globs name (absolute paths, as for filepath.Match).
//
// The path alone would believe a container, whose /usr/bin is not ours; so the inode must be the one that has that
// name here. After a package upgrade under a running VM no file has it any more: then it must be a deleted file of
// root's on the file system where that name still is.
func (f FS) matches(e Exe, globs []string) bool {
	path, deleted := strings.CutSuffix(e.Path, deletedSuffix)
	if !matchesAny(globs, path) {
		return false
	}
	var st unix.Stat_t
	if deleted {
		_, err := retry(func() (int, error) { return 0, unix.Stat(f.Host+filepath.Dir(path), &st) })
		return err == nil && st.Dev == e.Dev && e.Owner == 0
	}
	_, err := retry(func() (int, error) { return 0, unix.Stat(f.Host+path, &st) })
	return err == nil && st.Dev == e.Dev && st.Ino == e.Ino
}

func matchesAny(globs []string, path string) bool {
	for _, g := range globs {
		if ok, err := filepath.Match(g, path); ok && err == nil {
			return true
		}
	}
	return false
}
