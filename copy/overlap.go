package imgcopy

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
)

// overlap refuses a copy of an image onto itself: under another name, another device node, through a loop device, or
// onto a device that holds it or that it holds.
func overlap(src *source, name string, dst *unix.Stat_t) error {
	same := fmt.Errorf("%s and %s are the same image", src.name, name)
	if src.kind != regular && src.kind != device {
		return nil
	}
	if sameInode(dst, &src.stat) {
		return same
	}
	fromDevice, toDevice := src.kind == device, dst.Mode&unix.S_IFMT == unix.S_IFBLK
	switch {
	case fromDevice && toDevice:
		if src.stat.Rdev == dst.Rdev {
			return same
		}
		if blockdev.Under(dst.Rdev, src.stat.Rdev) || blockdev.Under(src.stat.Rdev, dst.Rdev) {
			return fmt.Errorf("%s and %s are parts of one another", src.name, name)
		}
	case fromDevice && attachedAs(name, src.stat.Rdev), toDevice && attachedAs(src.name, dst.Rdev):
		return same
	}
	return nil
}

// onSource refuses a new file on a file system that is on the device being copied: the copy would have to hold itself.
func onSource(src *source, path string) error {
	var dir unix.Stat_t
	if src.kind != device || unix.Stat(filepath.Dir(path), &dir) != nil || !blockdev.Under(src.stat.Rdev, dir.Dev) {
		return nil
	}
	return fmt.Errorf("%s is on %s itself", path, src.name)
}

// attachedAs reports whether the file is what a loop device shows.
func attachedAs(path string, rdev uint64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, loop := range blockdev.LoopsOf(f) {
		var st unix.Stat_t
		if unix.Stat(loop, &st) == nil && st.Rdev == rdev {
			return true
		}
	}
	return false
}

func sameInode(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
