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

// TestNameStays: where a name could not be removed, the keeper is not told of whoever opens the file after that.
func TestNameStays(t *testing.T) {
	w := newWorld(t)
	for name, fail := range map[string]func(in fuse.InHeader) fuse.Status{
		"remove": func(in fuse.InHeader) fuse.Status { return w.Rmdir(nil, &in, "f") },
		"rename": func(in fuse.InHeader) fuse.Status {
			w.write("other", "y")
			return w.Rename(nil, &fuse.RenameIn{InHeader: in, Newdir: rootID, Flags: 1 << 20}, "other", "f") // no such flag
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.write("f", "x")
			if code := fail(fuse.InHeader{NodeId: rootID, Unique: 8}); code.Ok() {
				t.Fatal("it was done")
			}
			fh := w.open("f", unix.O_RDWR)
			if len(w.keeper) != 0 {
				t.Errorf("the keeper holds %v", w.keeper)
			}
			w.Release(nil, &fuse.ReleaseIn{Fh: fh})
		})
	}
}

// full is a keeper that has no room.
type full struct{ Keeper }

func (full) Keep(string, int) error { return unix.ENOSPC }

// TestKeeperHasNoRoom: an open that fails because its descriptor would not outlive this worker leaves nothing behind. The
// number of the descriptor that was closed is soon another file's.
func TestKeeperHasNoRoom(t *testing.T) {
	w := newWorld(t)
	w.write("f", "x")
	before := w.open("f", unix.O_RDWR)
	id := w.lookup("f")
	if code := w.Unlink(nil, &fuse.InHeader{NodeId: rootID, Unique: 8}, "f"); !code.Ok() {
		t.Fatal(code)
	}
	w.FS.keeper = full{w.keeper}
	in := fuse.InHeader{NodeId: id, Unique: 10}
	if code := w.Open(nil, &fuse.OpenIn{InHeader: in, Flags: unix.O_RDONLY}, &fuse.OpenOut{}); code.Ok() {
		t.Error("a file without a name was opened, and nobody keeps it")
	}
	in = fuse.InHeader{NodeId: rootID, Unique: 12}
	if code := w.Tmpfile(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_RDWR, Mode: 0o600}, &fuse.CreateOut{}); code.Ok() {
		t.Error("a file without a name was made, and nobody keeps it")
	}
	n, _ := w.nodes.get(id)
	if handles, openers := w.handles.size(), len(n.openers()); handles != 1 || openers != 1 {
		t.Errorf("%d handles, %d of the file; want the one from before", handles, openers)
	}
	if known := w.nodes.size(); known != 2 {
		t.Errorf("%d nodes are known, want the root and the file", known)
	}
	w.Release(nil, &fuse.ReleaseIn{Fh: before})
}
