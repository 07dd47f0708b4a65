package blockdev

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// LoopsOf names the loop devices that have the file f attached.
func LoopsOf(f *os.File) []string { return loopsOf("/sys", f) }

// loopsOf asks sysfs, which names backing files by path; a path that leads to the inode of f is it. One that was
// unlinked since has " (deleted)" at its end and is not found.
func loopsOf(root string, f *os.File) []string {
	var want unix.Stat_t
	if unix.Fstat(int(f.Fd()), &want) != nil {
		return nil
	}
	attributes, _ := filepath.Glob(filepath.Join(root, "block/loop*/loop/backing_file"))
	var found []string
	for _, a := range attributes {
		b, err := os.ReadFile(a)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(strings.TrimSuffix(string(b), "\n"), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(a))))
		}
	}
	return found
}
