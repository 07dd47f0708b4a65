// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestOneNameOfSeveral: the keeper gets the descriptors of a file that is losing its last name. Of one that has lost a name
// and has others it would be told at each open from then on, and by what the keeper holds the image is never seen to be idle.
func TestOneNameOfSeveral(t *testing.T) {
	w := newWorld(t)
	for name, remove := range map[string]func(in fuse.InHeader) fuse.Status{
		"unlink": func(in fuse.InHeader) fuse.Status { return w.Unlink(nil, &in, "link") },
		"rename": func(in fuse.InHeader) fuse.Status {
			w.write("other", "y")
			return w.Rename(nil, &fuse.RenameIn{InHeader: in, Newdir: rootID}, "other", "link")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.write("f", "x")
			if err := unix.Link(w.path("f"), w.path("link")); err != nil {
				t.Fatal(err)
			}
			before := w.open("f", unix.O_RDWR)
			if code := remove(fuse.InHeader{NodeId: rootID, Unique: 8}); !code.Ok() {
				t.Fatal(code)
			}
			after := w.open("f", unix.O_RDWR)
			if len(w.keeper) != 0 {
				t.Errorf("the keeper holds %v", w.keeper)
			}
			if code := w.Unlink(nil, &fuse.InHeader{NodeId: rootID, Unique: 10}, "f"); !code.Ok() {
				t.Fatal(code)
			}
			if len(w.keeper) != 2 {
				t.Errorf("the file has no name any more, and the keeper holds %v of two descriptors", w.keeper)
			}
			for _, fh := range []uint64{before, after} {
				w.Release(nil, &fuse.ReleaseIn{Fh: fh})
			}
		})
	}
}
