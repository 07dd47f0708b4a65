// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts an ext4 file system of a few MiB in the directory of images, on a loop device, and returns its name
// there.
func (h *Host) SmallDisk(t testing.TB, size int64) string {
	t.Helper()
	file, dir := filepath.Join(h.Dir, "small.ext4"), h.Image("small")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Run(t, "truncate", "-s", itoa(int(size)), file).OK(t)
	Run(t, "mkfs.ext4", "-q", "-m", "0", file).OK(t)
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	Run(t, "mount", "-o", "loop", file, dir).OK(t) // the loop device goes with the mount
	beneath := h.Beneath(t, dir)
	t.Cleanup(func() {
		if err := unix.Unmount(beneath, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	return "small"
}
