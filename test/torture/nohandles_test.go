// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// mountOverlay puts an overlay over the host's directory of images: a file system without file handles, as the root of a
// container or of a live system is.
func mountOverlay(t *testing.T, h *harness.Host) {
	t.Helper()
	var dirs [3]string
	for i, name := range []string{"lower", "upper", "work"} {
		dirs[i] = filepath.Join(h.Dir, name)
		if err := os.Mkdir(dirs[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dirs[0], dirs[1], dirs[2])
	if err := unix.Mount("overlay", h.Images, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.Images, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestTakeoversWithoutFileHandles: where files can be found by their names alone, a successor finds the root, what has a
// name, and what has lost it and is open.
func TestTakeoversWithoutFileHandles(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.NewFiles(t)
		mountOverlay(t, h)
		v := h.Mount(t, opts...)
		v.Expected = []string{"the worker died"}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(os.MkdirAll(filepath.Join(v.Dir, "a/b"), 0o755))
		deep := filepath.Join(v.Dir, "a/b/file")
		must(os.WriteFile(deep, []byte("content"), 0o644))
		held := hold(t, v)
		for i := range 4 {
			killOne(t, v)
			must(holdsOnly(deep, "content"))
			for _, f := range []*os.File{held.removed, held.nameless} {
				must(f.Chmod(os.FileMode(0o600 + i)))
				must(f.Truncate(11))
				must(unix.Fsetxattr(int(f.Fd()), "user.round", []byte{byte('0' + i)}, 0))
			}
			moved := filepath.Join(v.Dir, fmt.Sprint("a/b", i))
			must(os.Rename(filepath.Dir(deep), moved))
			deep = filepath.Join(moved, "file")
		}
		held.check(t)
	})
}
