// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"strconv"
	"testing"

	"imgward/test/need"
)

// TestInodeNumberUsedAgain: a removed file that the kernel has not forgotten and a new one may have the same inode number.
// A successor must not take the one for the other, or the new file would have two nodes: the guard sees who has a file
// open by its node.
func TestInodeNumberUsedAgain(t *testing.T) {
	w := newWorld(t)
	w.write("first", "x")
	w.write("old", "x")
	first := w.lookup("first")
	w.lookup("old")
	old := w.ino("old")
	if err := os.Remove(w.path("first")); err != nil {
		t.Fatal(err)
	}
	w.Forget(first, 1) // its slot is for the new file, before that of the old one
	w.next()
	if err := os.Remove(w.path("old")); err != nil {
		t.Fatal(err)
	}
	name := ""
	for i := 0; name == "" && i < 1000; i++ {
		made := "new" + strconv.Itoa(i)
		w.write(made, "x")
		if w.ino(made) == old {
			name = made
		}
	}
	if name == "" {
		need.Skip(t, "TMPDIR is on a file system that does not use an inode number again at once, as ext4 does")
	}
	node := w.lookup(name)
	for range 2 {
		w.next()
		if now := w.lookup(name); now != node {
			t.Errorf("the file has node %#x, and %#x after a take-over", node, now)
		}
	}
}
