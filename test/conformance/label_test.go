// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoLabel: where the kernel has no SELinux, a file without a label says that there are none at all, so that ls(1) asks
// no more. One that somebody put there, by rsync -X for example, can be read.
func TestNoLabel(t *testing.T) {
	if list, err := os.ReadFile("/proc/filesystems"); err != nil || bytes.Contains(list, []byte("selinuxfs")) {
		return // the kernel's own answer
	}
	const label = "security.selinux"
	atPlaces(t, func(t *testing.T, p *place) {
		name := filepath.Join(freshDir(t, p), "file")
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 64)
		if _, err := unix.Getxattr(name, label, value); p.kind() != "native" && err != unix.EOPNOTSUPP {
			t.Errorf("without a label: %v, want %v", err, unix.EOPNOTSUPP)
		}
		if err := unix.Setxattr(name, label, []byte("u:r:t"), 0); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Getxattr(name, label, value); err != nil || string(value[:n]) != "u:r:t" {
			t.Errorf("read back: %q, %v", value[:max(n, 0)], err)
		}
	})
}
