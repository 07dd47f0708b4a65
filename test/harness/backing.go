// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// OnOverlay makes the directory of images an overlayfs as containers have it, whose files have no handles that
// open_by_handle_at(2) takes. It is called before anything is made in there, and before a view is mounted.
func (h *Host) OnOverlay(t testing.TB) {
	t.Helper()
	options := "index=off,nfs_export=off"
	for _, layer := range []string{"lowerdir", "upperdir", "workdir"} {
		path := filepath.Join(h.Dir, layer)
		if err := os.Mkdir(path, 0o711); err != nil {
			t.Fatal(err)
		}
		options += "," + layer + "=" + path
	}
	if err := os.Chmod(filepath.Join(h.Dir, "upperdir"), 0o711); err != nil { // the umask
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", h.Images, "overlay", 0, options); err != nil {
		t.Fatalf("mount overlayfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.Images, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount overlayfs: %v", err)
		}
	})
	h.beneath = pinDir(t, h.Images)
}
