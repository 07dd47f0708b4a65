// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestLookupAgain: a file that is known is found by its name again, each time counts, and a name that leads to another
// file meanwhile, to a directory or nowhere is not taken for it.
func TestLookupAgain(t *testing.T) {
	w := newWorld(t)
	w.write("f", "x")
	w.write("g", "longer")
	id := w.lookup("f")
	for range 3 {
		if got := w.lookup("f"); got != id {
			t.Fatalf("again: %#x, want %#x", got, id)
		}
	}
	n, _ := w.nodes.get(id)
	if got := w.nodes.lookups(n); got != 4 {
		t.Errorf("%d lookups are counted, want 4", got)
	}
	if err := os.Rename(w.path("g"), w.path("f")); err != nil {
		t.Fatal(err)
	}
	other := w.lookup("f")
	if other == id {
		t.Error("a file that took the name's place is taken for the one before")
	}
	if got := w.lookup("f"); got != other {
		t.Errorf("again: %#x, want %#x", got, other)
	}
	var out fuse.EntryOut
	if code := w.Lookup(nil, &fuse.InHeader{NodeId: rootID}, "none", &out); code != fuse.ENOENT {
		t.Errorf("a name that is not there: %v", code)
	}
	w.lookup("f")
	if err := os.Remove(w.path("f")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.path("f"), 0o700); err != nil {
		t.Fatal(err)
	}
	if code := w.Lookup(nil, &fuse.InHeader{NodeId: rootID}, "f", &out); !code.Ok() || out.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		t.Errorf("a directory in the file's place: %v, mode %o", code, out.Mode)
	}
}
