// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// request is one request whose worker is killed, and what must have come of it when a successor has answered it.
type request struct {
	name string
	// prepare makes what the request needs, and returns it; it answers what the operation would.
	prepare func(w *world) func(in fuse.InHeader) fuse.Status
	// words are what its intent says of the world before the deed; nil: it needs none to be done once.
	words func(w *world) []uint64
	check func(w *world)
}

const opcode = 1 // any: intents are told apart by request, not by operation

var requests = []request{
	{
		name: "unlink",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "x")
			return func(in fuse.InHeader) fuse.Status { return w.Unlink(nil, &in, "f") }
		},
		words: func(w *world) []uint64 { return []uint64{w.ino("f")} },
		check: func(w *world) { w.absent("f") },
	},
	{
		name: "rename",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "new")
			w.write("g", "old")
			return func(in fuse.InHeader) fuse.Status {
				return w.Rename(nil, &fuse.RenameIn{InHeader: in, Newdir: rootID}, "f", "g")
			}
		},
		words: func(w *world) []uint64 { return []uint64{w.ino("f"), w.ino("g")} },
		check: func(w *world) { w.absent("f"); w.holds("g", "new") },
	},
	{
		name: "exchange",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "one")
			w.write("g", "two")
			return func(in fuse.InHeader) fuse.Status {
				return w.Rename(nil, &fuse.RenameIn{InHeader: in, Newdir: rootID, Flags: unix.RENAME_EXCHANGE}, "f", "g")
			}
		},
		words: func(w *world) []uint64 { return []uint64{w.ino("f"), w.ino("g")} },
		check: func(w *world) { w.holds("f", "two"); w.holds("g", "one") },
	},
	{
		name: "mkdir",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			return func(in fuse.InHeader) fuse.Status {
				return w.Mkdir(nil, &fuse.MkdirIn{InHeader: in, Mode: 0o755}, "d", &fuse.EntryOut{})
			}
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) {
			if st, err := os.Stat(w.path("d")); err != nil || !st.IsDir() {
				w.t.Error(st, err)
			}
		},
	},
	{
		name: "symlink",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			return func(in fuse.InHeader) fuse.Status { return w.Symlink(nil, &in, "target", "l", &fuse.EntryOut{}) }
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) {
			if to, err := os.Readlink(w.path("l")); to != "target" {
				w.t.Error(to, err)
			}
		},
	},
	{
		name: "link",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "x")
			id := w.lookup("f")
			return func(in fuse.InHeader) fuse.Status {
				return w.Link(nil, &fuse.LinkIn{InHeader: in, Oldnodeid: id}, "g", &fuse.EntryOut{})
			}
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) { w.holds("g", "x") },
	},
	{
		name: "create, O_EXCL",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			return func(in fuse.InHeader) fuse.Status {
				return w.Create(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_RDWR | unix.O_EXCL, Mode: 0o600}, "f", &fuse.CreateOut{})
			}
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) {
			w.holds("f", "")
			if n := w.handles.size(); n != 1 {
				w.t.Errorf("%d handles, want 1", n)
			}
		},
	},
	{
		name: "O_TMPFILE",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			return func(in fuse.InHeader) fuse.Status {
				return w.Tmpfile(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_RDWR, Mode: 0o600}, &fuse.CreateOut{})
			}
		},
		check: func(w *world) {
			if n := w.handles.size(); n != 1 || len(w.keeper) != 1 {
				w.t.Errorf("%d handles, %d kept; want 1 of each", n, len(w.keeper))
			}
		},
	},
	{
		name: "append",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "begin,")
			fh := w.open("f", unix.O_WRONLY|unix.O_APPEND)
			return func(in fuse.InHeader) fuse.Status {
				in.Length = 0
				n, code := w.Write(nil, &fuse.WriteIn{InHeader: in, Fh: fh, Flags: unix.O_WRONLY | unix.O_APPEND, Offset: 1}, []byte("end"))
				if code.Ok() && n != 3 {
					w.t.Errorf("wrote %d bytes, want 3", n)
				}
				return code
			}
		},
		words: func(w *world) []uint64 { return []uint64{w.size("f"), 0} },
		check: func(w *world) { w.holds("f", "begin,end") },
	},
	{
		name: "collapse",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", string(make([]byte, 64<<10))+"tail")
			fh := w.open("f", unix.O_RDWR)
			return func(in fuse.InHeader) fuse.Status {
				return w.Fallocate(nil, &fuse.FallocateIn{InHeader: in, Fh: fh, Length: 16 << 10, Mode: unix.FALLOC_FL_COLLAPSE_RANGE})
			}
		},
		words: func(w *world) []uint64 { return []uint64{w.size("f")} },
		check: func(w *world) { w.holds("f", string(make([]byte, 48<<10))+"tail") },
	},
	{
		name: "setxattr, create",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "x")
			id := w.lookup("f")
			return func(in fuse.InHeader) fuse.Status {
				in.NodeId = id
				return w.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: in, Flags: unix.XATTR_CREATE}, "trusted.a", []byte("b"))
			}
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) {
			if n, err := unix.Getxattr(w.path("f"), "trusted.a", nil); n != 1 {
				w.t.Error(n, err)
			}
		},
	},
	{
		name: "removexattr",
		prepare: func(w *world) func(fuse.InHeader) fuse.Status {
			w.write("f", "x")
			if err := unix.Setxattr(w.path("f"), "trusted.a", []byte("b"), 0); err != nil {
				w.t.Fatal(err)
			}
			id := w.lookup("f")
			return func(in fuse.InHeader) fuse.Status {
				in.NodeId = id
				return w.RemoveXAttr(nil, &in, "trusted.a")
			}
		},
		words: func(w *world) []uint64 { return []uint64{0} },
		check: func(w *world) {
			if _, err := unix.Getxattr(w.path("f"), "trusted.a", nil); err != unix.ENODATA {
				w.t.Error(err)
			}
		},
	},
}

// TestResent kills a worker at each stage of each request that must not be done twice, one successor after another, and
// has the request sent again: it is answered as if nothing had been, and done once.
func TestResent(t *testing.T) {
	const unique = 1000
	header := fuse.InHeader{NodeId: rootID, Unique: unique, Opcode: opcode}
	cuts := map[string]func(w *world, r *request, do func(fuse.InHeader) fuse.Status){
		"not begun": func(*world, *request, func(fuse.InHeader) fuse.Status) {},
		"begun": func(w *world, r *request, _ func(fuse.InHeader) fuse.Status) {
			w.begin(&header, r.words(w)...)
		},
		"done": func(w *world, r *request, do func(fuse.InHeader) fuse.Status) {
			do(header)
			w.unfinish(unique)
		},
		"over": func(w *world, r *request, do func(fuse.InHeader) fuse.Status) { do(header) },
		"begun, and over by the second": func(w *world, r *request, do func(fuse.InHeader) fuse.Status) {
			w.begin(&header, r.words(w)...)
			w.next()
			again := header
			again.Unique |= resendBit
			do(again)
		},
		"done, and gone over by the second": func(w *world, r *request, do func(fuse.InHeader) fuse.Status) {
			do(header)
			w.unfinish(unique)
			w.next()
			again := header
			again.Unique |= resendBit
			do(again)
		},
	}
	for _, r := range requests {
		for stage, cut := range cuts {
			t.Run(r.name+"/"+stage, func(t *testing.T) {
				if r.words == nil && stage != "not begun" && stage != "over" {
					return
				}
				w := newWorld(t)
				do := r.prepare(w)
				cut(w, &r, do)
				w.next()
				again := header
				again.Unique |= resendBit
				if code := do(again); !code.Ok() {
					t.Errorf("answered %v", code)
				}
				r.check(w)
			})
		}
	}
}

// TestTruncatingOpenResent: what others wrote between the truncation and its second coming stays.
func TestTruncatingOpenResent(t *testing.T) {
	const unique = 1000
	for _, over := range []bool{true, false} {
		w := newWorld(t)
		w.write("f", "a long content")
		in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: w.lookup("f"), Unique: unique}, Flags: unix.O_WRONLY | unix.O_TRUNC}
		if over {
			n, _ := w.nodes.get(in.NodeId)
			fd, no := w.openTruncating(n, &in.InHeader, int(in.Flags), false) // killed before there is a handle
			if no != 0 {
				t.Fatal(no)
			}
			unix.Close(fd)
		} else {
			w.begin(&in.InHeader, w.size("f"))
			w.write("f", "")
		}
		w.write("f", "others'")
		w.next()
		in.Unique |= resendBit
		if code := w.Open(nil, in, &fuse.OpenOut{}); !code.Ok() {
			t.Error(code)
		}
		w.holds("f", "others'")
		w.next()
		if code := w.Open(nil, in, &fuse.OpenOut{}); !code.Ok() {
			t.Error(code)
		}
		w.holds("f", "others'")
		if n := w.handles.size(); n != 1 {
			t.Errorf("%d handles, want 1", n)
		}
	}
}

// TestAppendCutShort: a process that is killed stops in the middle of a write; the rest is appended, and no more.
func TestAppendCutShort(t *testing.T) {
	w := newWorld(t)
	w.write("f", "begin,")
	fh := w.open("f", unix.O_WRONLY|unix.O_APPEND)
	in := &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: w.lookup("f"), Unique: 1000}, Fh: fh, Flags: unix.O_WRONLY | unix.O_APPEND}
	w.begin(&in.InHeader, w.size("f"), 0)
	w.write("f", "begin,the ")
	w.next()
	in.Unique |= resendBit
	if n, code := w.Write(nil, in, []byte("the end")); n != 7 || !code.Ok() {
		t.Error(n, code)
	}
	w.holds("f", "begin,the end")
}

// TestAppendMode: fcntl(F_SETFL) puts an open file into append mode and out of it, and the kernel says so with each write.
func TestAppendMode(t *testing.T) {
	w := newWorld(t)
	w.write("f", "0123")
	for _, opened := range []int{unix.O_WRONLY, unix.O_WRONLY | unix.O_APPEND} {
		fh := w.open("f", opened)
		in := &fuse.WriteIn{InHeader: fuse.InHeader{Unique: 4}, Fh: fh, Flags: unix.O_WRONLY}
		w.Write(nil, in, []byte("x"))
		in.Flags |= unix.O_APPEND
		w.Write(nil, in, []byte("y"))
	}
	w.holds("f", "x123yy")
}

// TestTmpfileLost: a worker that was killed before the keeper had its nameless file leaves a handle of nothing, which the
// next attempt replaces.
func TestTmpfileLost(t *testing.T) {
	w := newWorld(t)
	in := &fuse.CreateIn{InHeader: fuse.InHeader{NodeId: rootID, Unique: 1000}, Flags: unix.O_RDWR, Mode: 0o600}
	w.Tmpfile(nil, in, &fuse.CreateOut{})
	for name := range w.keeper {
		w.keeper.Drop(name)
	}
	w.next()
	in.Unique |= resendBit
	if code := w.Tmpfile(nil, in, &fuse.CreateOut{}); !code.Ok() {
		t.Error(code)
	}
	if n := w.handles.size(); n != 1 {
		t.Errorf("%d handles, want 1", n)
	}
}
