// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
	"imgward/test/need"
)

// anything is a guard that allows everything.
type anything struct{ guard.Checker }

func (anything) Check(context.Context, *guard.Request) guard.Verdict {
	return guard.Verdict{Allowed: true}
}
func (anything) TakesLocks(int, uint32) {}

func (anything) Classify(tid int, uid uint32) guard.Process { return guard.Process{PID: tid, UID: uid} }

// shelf is a keeper that lives as long as the test.
type shelf map[string]int

func (s shelf) Keep(name string, fd int) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	s[name] = dup
	return err
}
func (s shelf) Drop(name string) { unix.Close(s[name]); delete(s, name) }

// world is a backing directory with one worker after the other; a worker is killed by making the next from the state.
type world struct {
	t      *testing.T
	dir    string
	region *state.Region
	keeper shelf
	*FS
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need.Have(t, need.Root, need.Mounting) // open_by_handle_at(2)
	region, err := state.Create()
	if err != nil {
		t.Fatal(err)
	}
	// Not below /tmp, which may be a file system without file handles or extended attributes.
	dir, err := os.MkdirTemp("/var/tmp", "imgward-resend-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, region: region, keeper: shelf{}}
	w.next()
	if err := w.addRoot(); err != nil {
		t.Fatal(err)
	}
	return w
}

// nowhere is a server that has no kernel to notify of anything.
func nowhere() *fuse.Server { return &fuse.Server{} }

// next puts a successor in the present worker's place, whose descriptors are closed by its death.
func (w *world) next() {
	w.t.Helper()
	if w.FS != nil {
		for _, n := range w.nodes.all() {
			if fd, had := n.path.take(); had {
				unix.Close(fd)
			}
		}
		for _, h := range w.handles.all() {
			h.close(closeFd)
		}
	}
	tree, err := os.Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	kept := map[string]int{}
	for name, fd := range w.keeper {
		kept[name], _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	host, err := NewHost(int(tree.Fd()), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &Config{Options: Options{Backing: w.dir}, Log: slog.New(slog.DiscardHandler), Keeper: w.keeper, Kept: kept}
	if w.FS, err = newFS(context.Background(), c, tree, w.region, host, anything{}); err != nil {
		w.t.Fatal(err)
	}
	w.FS.srv = nowhere()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) lookup(name string) uint64 {
	w.t.Helper()
	var out fuse.EntryOut
	if code := w.Lookup(nil, &fuse.InHeader{NodeId: rootID}, name, &out); !code.Ok() {
		w.t.Fatal(code)
	}
	return out.NodeId
}

func (w *world) open(name string, flags int) (fh uint64) {
	w.t.Helper()
	var out fuse.OpenOut
	in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: w.lookup(name), Unique: 2}, Flags: uint32(flags)}
	if code := w.Open(nil, in, &out); !code.Ok() {
		w.t.Fatal(code)
	}
	return out.Fh
}

// unfinish makes the intent of a request what it was right after the deed, before the worker had noted how it ended.
func (w *world) unfinish(unique uint64) {
	w.t.Helper()
	const ring, record, uniqueAt, resultAt = (16 << 10) * 128, 128, 8, 88
	f := w.region.File()
	st, err := f.Stat()
	if err != nil {
		w.t.Fatal(err)
	}
	var buf [record]byte
	for off := st.Size() - ring; off < st.Size(); off += record {
		if _, err := f.ReadAt(buf[:], off); err != nil {
			w.t.Fatal(err)
		}
		if binary.NativeEndian.Uint64(buf[uniqueAt:]) != unique {
			continue
		}
		if _, err := f.WriteAt(make([]byte, 8), off+resultAt); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	w.t.Fatalf("request %d left no intent", unique)
}

func (w *world) holds(name, content string) {
	w.t.Helper()
	if b, err := os.ReadFile(w.path(name)); err != nil || string(b) != content {
		w.t.Errorf("%s holds %q, want %q (%v)", name, b, content, err)
	}
}

func (w *world) absent(name string) {
	w.t.Helper()
	if _, err := os.Lstat(w.path(name)); !os.IsNotExist(err) {
		w.t.Errorf("%s: %v, want it not to exist", name, err)
	}
}

// size is a file's size as an operation finds it.
func (w *world) size(name string) uint64 {
	st, err := os.Stat(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return uint64(st.Size())
}

func (w *world) ino(name string) uint64 {
	var st syscall.Stat_t
	if syscall.Lstat(w.path(name), &st) != nil {
		return 0
	}
	return st.Ino
}
