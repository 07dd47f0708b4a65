// SPDX-License-Identifier: Apache-2.0

package isolate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// detachForeign takes out of this mount namespace, which is a private copy of the host's, what others may have to end: a
// view, whose daemon lives for as long as any namespace shows it, and what other suites have mounted, whose loop devices
// and daemons likewise could not go while this sandbox lives. (mkfs.btrfs, besides, asks for the file behind every loop
// device that is mounted, and fails when that is on a dead view.)
func detachForeign() error { return detach(foreign) }

// DetachViews takes the views out of this mount namespace, which must be private.
func DetachViews() error {
	return detach(func(_, fstype, _ string) bool { return fstype == "fuse.imgward" })
}

func detach(which func(point, fstype, source string) bool) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		mount, source, _ := strings.Cut(line, " - ")
		point, of := unescape(strings.Fields(mount)[4]), strings.Fields(source)
		if !which(point, of[0], of[1]) {
			continue
		}
		switch err := unix.Unmount(point, unix.MNT_DETACH); err {
		case nil, unix.EINVAL, unix.ENOENT: // one that is not there any more went with one above it
		default:
			return fmt.Errorf("detach %s: %w", point, err)
		}
	}
	return nil
}

// foreign reports whether a mount is a view, or a loop device or FUSE file system where tests make them.
func foreign(point, fstype, source string) bool {
	if fstype == "fuse.imgward" {
		return true
	}
	if here, err := os.Getwd(); err != nil || within(here, point) || within(os.TempDir(), point) {
		return false
	}
	ofTests := slices.ContainsFunc([]string{"/tmp", "/var/tmp", "/var/lib", os.TempDir()}, func(dir string) bool {
		return point != dir && within(point, dir)
	})
	return ofTests && (strings.HasPrefix(source, "/dev/loop") || strings.HasPrefix(fstype, "fuse"))
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
