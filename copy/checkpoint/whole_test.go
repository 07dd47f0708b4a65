// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"imgward/copy/internal/testvol"
)

// TestWholeOfDevice: a device has no time that tells whether its copy is of before.
func TestWholeOfDevice(t *testing.T) {
	dev, to := testvol.Device(t, 1<<20), filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(to, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NoteWhole(dev, to); err != nil {
		t.Fatal(err)
	}
	if !Whole(dev, to) {
		t.Error("nothing happened, and it is to be copied again")
	}
	testvol.Run(t, "dd", "if=/dev/zero", "of="+dev, "bs=4k", "count=1", "conv=notrunc,fsync", "status=none")
	if Whole(dev, to) {
		t.Error("the device was written to, and nobody noticed")
	}
}
