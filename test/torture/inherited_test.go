// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"path/filepath"
	"testing"

	"imgward/test/harness"
)

// TestInheritedDescriptors: what the shell that mounts has open is not held for as long as the view lives.
func TestInheritedDescriptors(t *testing.T) {
	h := harness.NewFiles(t)
	lock := filepath.Join(h.Dir, "lock")
	harness.Sh(t, `exec 9>"$LOCK"; flock 9; "$IMGWARD" mount --log "$LOCK.log" "$DIR"`,
		"LOCK="+lock, "IMGWARD="+harness.Imgward(), "DIR="+h.Images).OK(t)
	t.Cleanup(func() { harness.Run(t, harness.Imgward(), "umount", h.Images).OK(t) })
	harness.Run(t, "flock", "-n", lock, "true").OK(t)
}
