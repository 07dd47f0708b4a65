// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInFstab(t *testing.T) {
	table := filepath.Join(t.TempDir(), "fstab")
	text := "# /srv/no /srv/no imgward defaults 0 0\n/srv/a\\040b /srv/a\\040b imgward defaults 0 0\n/dev/sda1 /srv/disk ext4\nimgward /srv/c fuse.imgward\n"
	if err := os.WriteFile(table, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"/srv/a b": true, "/srv/c": true, "/srv/no": false, "/srv/disk": false, "/srv": false} {
		if got := inFstab(table, dir); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if inFstab(table+".none", "/srv/c") {
		t.Error("there is no such table")
	}
}
