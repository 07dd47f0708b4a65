// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// WaitDetached waits until no loop device is attached to a file. `losetup -d` is lazy: while anybody has the device open, as
// somebody who looks at all of them may for a moment, it stays.
func WaitDetached(t testing.TB, file string) {
	t.Helper()
	Until(t, "no loop device is attached to "+file, func() bool { return len(loopsOver(file)) == 0 })
}

// loopsOver lists the loop devices attached to a file. The kernel shows its path without what is mounted above it.
func loopsOver(file string) []string {
	var found []string
	attached, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range attached {
		backing, err := os.ReadFile(path)
		if name := strings.TrimSuffix(strings.TrimSpace(string(backing)), " (deleted)"); err == nil && name == file {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(path))))
		}
	}
	return found
}
