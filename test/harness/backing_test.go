// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnOverlay: images without file handles, below a view that serves them.
func TestOnOverlay(t *testing.T) {
	h := NewFiles(t)
	h.OnOverlay(t)
	image := h.Raw(t, "vm.img", MiB)
	if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, image, 0); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("name_to_handle_at: %v, want EOPNOTSUPP", err)
	}
	before := h.Identify(t, image)
	h.Mount(t)
	if err := os.WriteFile(h.Image("new.img"), []byte("through the view"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(h.Beneath(t, h.Image("new.img"))); string(b) != "through the view" {
		t.Errorf("beneath: %q, %v", b, err)
	}
	if after := h.Identify(t, image); after.Ino != before.Ino || after.Sum != before.Sum {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
}
