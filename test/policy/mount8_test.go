// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// helperDir is in the path of programs of mount.fuse (libfuse 3), which is its own.
const helperDir = "/usr/local/sbin"

// TestMount8: mount(8) mounts a view by the type that it has in the mount table, and remounts it, through libfuse's helper.
func TestMount8(t *testing.T) {
	v := newView(t, allAlways)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, helperDir)
	t.Cleanup(func() { unmount(t, helperDir) })
	if err := os.Symlink(bin, filepath.Join(helperDir, "imgward")); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(filepath.Dir(v.dir), "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{v.dir, source} {
		harness.Run(t, "mount", "-t", "fuse.imgward", "-o", "nodev,policy="+v.policy, what, v.dir).OK(t)
		if out := v.run(t, "status", v.dir); (what != v.dir) != strings.Contains(out, "shows "+what) {
			t.Errorf("the view does not show %s:\n%s", what, out)
		}
		v.run(t, "umount", v.dir)
	}

	harness.Run(t, "mount", "-t", "fuse.imgward", "-o", "nodev,policy="+v.policy, v.dir, v.dir).OK(t)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })
	image := v.image(t, "a")
	pid := v.describe(t).PID
	held, err := os.Create(filepath.Join(v.dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "mount", "-o", "remount,ro", v.dir).Fails(t, "open for writing")
	held.Close()
	harness.Run(t, "mount", "-o", "remount,ro,noexec", v.dir).OK(t)
	if err := os.Chmod(image, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("chmod on a view that was remounted read-only: %v", err)
	}
	options := func() string { return harness.Run(t, "findmnt", "-no", "OPTIONS", v.dir).OK(t) }
	if o := options(); !strings.HasPrefix(o, "ro,nodev,noexec") {
		t.Errorf("options %s", o)
	}
	harness.Run(t, "mount", "-o", "remount,rw", v.dir).OK(t)
	if err := os.Chmod(image, 0o600); err != nil {
		t.Errorf("chmod on a view that was remounted read-write: %v", err)
	}
	if o := options(); !strings.HasPrefix(o, "rw,nodev,noexec") {
		t.Errorf("options %s", o)
	}
	if d := v.describe(t); d.PID != pid {
		t.Error("a remount has changed the daemon")
	}
}
