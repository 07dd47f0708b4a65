// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/test/need"
)

// lookupAgain is what the kernel does with a file handle of the view.
func (w *world) lookupAgain(id uint64) (got uint64, code fuse.Status) {
	var out fuse.EntryOut
	code = w.Lookup(nil, &fuse.InHeader{NodeId: id}, ".", &out)
	return out.NodeId, code
}

// TestForgottenNodesAreFound: a file has one id for as long as it exists, whether the kernel has forgotten it meanwhile or
// a successor has come; one that is gone has none, also when its inode number was given away again.
func TestForgottenNodesAreFound(t *testing.T) {
	w := newWorld(t)
	w.write("f", "x")
	id := w.lookup("f")
	for range 3 {
		w.Forget(id, 1)
		if n := w.nodes.size(); n != 1 {
			t.Errorf("%d nodes are known to the kernel, want the root alone", n)
		}
		if w.nodes.find(w.key(id)) != nil {
			t.Error("a node that the kernel has forgotten counts as known")
		}
		if got, code := w.lookupAgain(id); code != fuse.OK || got != id {
			t.Errorf("by its id: %#x, %v, want %#x", got, code, id)
		}
		w.Forget(id, 1)
		w.next()
		if now := w.lookup("f"); now != id {
			t.Errorf("by its name: %#x, want %#x", now, id)
		}
	}
	w.Forget(id, 1)
	old := w.ino("f")
	for i := range 1000 {
		if err := os.Remove(w.path("f")); err != nil {
			t.Fatal(err)
		}
		if _, code := w.lookupAgain(id); code != fuse.Status(syscall.ESTALE) {
			t.Fatalf("round %d: a file that is gone: %v, want ESTALE", i, code)
		}
		w.write("f", "y")
		if w.ino("f") != old {
			continue
		}
		if _, code := w.lookupAgain(id); code != fuse.Status(syscall.ESTALE) {
			t.Errorf("another file has its inode number: %v, want ESTALE", code)
		}
		if now := w.lookup("f"); now == id {
			t.Error("another file has its id")
		}
		return
	}
	need.Skip(t, "TMPDIR is on a file system that does not use an inode number again at once, as ext4 does")
}

// key is the inode of a node, whether the kernel knows it or not.
func (w *world) key(id uint64) guard.ID {
	n, no := w.nodes.get(id)
	if no != 0 {
		w.t.Fatal(no)
	}
	return n.key
}

// TestForgottenNodesMakeRoom: nodes that the kernel has forgotten are given up when there are too many, and those that it
// knows are not. Nothing is remembered of a file that is gone.
func TestForgottenNodesMakeRoom(t *testing.T) {
	w := newWorld(t)
	var ids []uint64
	for i := range 40 {
		w.write(strconv.Itoa(i), "x")
		ids = append(ids, w.lookup(strconv.Itoa(i)))
	}
	for _, id := range ids[10:] {
		w.Forget(id, 1)
	}
	w.nodes.evict(5)
	known, remembered := 0, 0
	for i, id := range ids {
		_, no := w.nodes.get(id)
		switch {
		case no == 0 && i < 10:
			known++
		case no == 0:
			remembered++
		}
	}
	if known != 10 || remembered != 5 || w.nodes.size() != 11 {
		t.Errorf("%d known, want 10; %d forgotten, want 5; size %d, want 11", known, remembered, w.nodes.size())
	}
	if err := os.Remove(w.path("0")); err != nil {
		t.Fatal(err)
	}
	w.Forget(ids[0], 1)
	if _, no := w.nodes.get(ids[0]); no != syscall.ESTALE {
		t.Errorf("a removed file's node: %v, want ESTALE", no)
	}
	w.nodes.evict(0)
	w.nodes.pruneAt = 5 // the table is crowded
	w.Forget(ids[1], 1)
	if n := w.nodes.forgotten.Load(); n != 0 {
		t.Errorf("%d forgotten nodes are remembered where there is no room", n)
	}
	if used := w.nodes.records.Used(); used != 9 {
		t.Errorf("%d records, want 8 and the root's", used)
	}
}

// TestHandlesOfAnotherMount: ids of one view mean nothing to the next.
func TestHandlesOfAnotherMount(t *testing.T) {
	ids := map[uint64]bool{}
	for range 3 {
		w := newWorld(t)
		w.write("f", "x")
		if id := w.lookup("f"); ids[id] {
			t.Errorf("two mounts give the id %#x", id)
		} else {
			ids[id] = true
		}
	}
}

// TestGuardJudgesByHandle: what is opened by a file handle, after the kernel has forgotten the image, is judged as any other
// open of it.
func TestGuardJudgesByHandle(t *testing.T) {
	l := newLive(t)
	l.write(t, "image")
	var st unix.Stat_t
	if err := unix.Stat(l.backing+"/image", &st); err != nil {
		t.Fatal(err)
	}
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, l.path("image"), 0)
	if err != nil {
		t.Fatal(err)
	}
	mount, err := unix.Open(l.dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mount)
	var asked atomic.Int32
	l.guard.answer(nil, func(r *guard.Request) guard.Verdict {
		if r.Image != guard.StatID(&st) {
			return guard.Verdict{Allowed: true}
		}
		asked.Add(1)
		return guard.Verdict{Errno: syscall.EBUSY}
	})
	for _, flags := range []int{unix.O_WRONLY, unix.O_WRONLY | unix.O_TRUNC} {
		for end := 0; l.FS.nodes.size() > 1 && end < 100; end++ {
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if fd, err := unix.OpenByHandleAt(mount, h, flags|unix.O_CLOEXEC); err != unix.EBUSY {
			unix.Close(fd)
			t.Errorf("open by handle with flags %#x: %v, want EBUSY", flags, err)
		}
	}
	if asked.Load() == 0 {
		t.Error("the guard was not asked")
	}
	fd, err := unix.OpenByHandleAt(mount, h, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}
