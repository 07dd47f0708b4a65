// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"testing"
)

// hostEmulator is where the distribution has its QEMU.
const hostEmulator = "/usr/bin/qemu-system-x86_64"

func (h *Host) emulator() string {
	if h.Emulator == "" {
		return hostEmulator
	}
	return h.Emulator
}

// InstallEmulator puts a QEMU of the host's own somewhere else, with what it looks for beside itself, as one that was built
// by hand is. name is relative to the host's directory ("opt/qemu/bin/qemu-system-x86_64"). It returns the path.
func (h *Host) InstallEmulator(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	prefix := filepath.Dir(filepath.Dir(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"share", "lib"} {
		if err := os.Symlink(filepath.Join("/usr", dir), filepath.Join(prefix, dir)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if err := copyFile(hostEmulator, path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
