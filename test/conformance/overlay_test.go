// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlay: the target that has no file handles has none, and a view over it serves.
func TestOverlay(t *testing.T) {
	for _, name := range []string{"native", "view"} {
		t.Run(name, func(t *testing.T) {
			p := newPlaceOn(t, name, "overlay")
			file := filepath.Join(p.dir, "file")
			if err := os.WriteFile(file, []byte("inside"), 0o600); err != nil {
				t.Fatal(err)
			}
			below := file
			if p.backing != "" {
				below = filepath.Join(p.backing, "file")
			}
			if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, below, 0); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("name_to_handle_at: %v, want EOPNOTSUPP", err)
			}
			if b, err := os.ReadFile(below); string(b) != "inside" {
				t.Errorf("below: %q, %v", b, err)
			}
		})
	}
}
