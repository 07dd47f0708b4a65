// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func create(t testing.TB) *Region {
	t.Helper()
	r, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// reopen maps the memory once more, as a successor does with the keeper's descriptor.
func reopen(t testing.TB, r *Region) (*Region, error) {
	t.Helper()
	fd, err := unix.FcntlInt(r.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "state")
	again, err := Open(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	t.Cleanup(func() { again.Close() })
	return again, nil
}

func TestSuccessorReadsHeader(t *testing.T) {
	r := create(t)
	r.SaveInit([]byte("the kernel's INIT"))
	r.SetDevice(42)
	r.RaiseBackingID(7)
	r.RaiseBackingID(3)
	r.CountRefusal()
	start := time.Now()
	r.BeginServing(start, time.Time{})
	again, err := reopen(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(again.Init()); got != "the kernel's INIT" {
		t.Errorf("Init() = %q", got)
	}
	if again.Device() != 42 || again.MaxBackingID() != 7 || again.Refusals() != 1 || again.Generation() != 1 {
		t.Errorf("device %d, backing id %d, refusals %d, generation %d", again.Device(), again.MaxBackingID(), again.Refusals(), again.Generation())
	}
	if pause := again.BeginServing(start.Add(time.Second), start.Add(990*time.Millisecond)); pause != 10*time.Millisecond {
		t.Errorf("pause = %v, want 10ms", pause)
	}
	if again.Generation() != 2 {
		t.Errorf("generation = %d, want 2", again.Generation())
	}
}

// TestUnknownVersionIsLeftAlone: a binary that does not know the layout says so and changes nothing.
func TestUnknownVersionIsLeftAlone(t *testing.T) {
	r := create(t)
	r.store(hVersion, Version+1)
	r.store(hCheck, r.headerCheck())
	head := append([]byte(nil), r.mem[:headerSize]...)
	if _, err := reopen(t, r); !errors.Is(err, ErrVersion) {
		t.Fatalf("Open = %v, want ErrVersion", err)
	}
	if string(head) != string(r.mem[:headerSize]) {
		t.Error("the header was changed")
	}
}

func TestBrokenHeaderIsRefused(t *testing.T) {
	for name, at := range map[string]int{"magic": hMagic, "size": hSize, "check": hCheck} {
		r := create(t)
		r.store(at, r.load(at)^1)
		if _, err := reopen(t, r); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Open = %v, want ErrCorrupt", name, err)
		}
	}
	short, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := Open(short); !errors.Is(err, ErrCorrupt) {
		t.Errorf("empty file: Open = %v, want ErrCorrupt", err)
	}
}

// TestIDsAreNeverUsedAgain: the kernel may ask for a node that it was told of long ago.
func TestIDsAreNeverUsedAgain(t *testing.T) {
	nodes := NewNodes(create(t), nil)
	seen := map[uint64]bool{}
	for range 1000 {
		n := &Node{Lookups: 1}
		slot, ok := nodes.Add(n)
		if !ok || seen[n.ID] {
			t.Fatalf("id %#x given twice (ok %v)", n.ID, ok)
		}
		seen[n.ID] = true
		nodes.Remove(slot)
	}
	if root := (&Node{}); true {
		fresh := NewNodes(create(t), nil)
		fresh.Add(root)
		if root.ID != 1 {
			t.Errorf("first id = %d, want FUSE_ROOT_ID", root.ID)
		}
	}
}

func TestIntentsAreFoundBySuccessor(t *testing.T) {
	r := create(t)
	in := NewIntents(r)
	for i := range uint64(maxIntents + 100) {
		in.Begin(&Intent{Unique: i + 1, Op: 10, Words: [8]uint64{i}})(uint32(i))
	}
	next := NewIntents(r)
	if next.Left(1) != nil {
		t.Error("an intent thousands of operations old is still there")
	}
	if got := next.Left(maxIntents + 100); got == nil || got.Words[0] != maxIntents+99 || got.Op != 10 || !got.Over || got.Result != maxIntents+99 {
		t.Errorf("the last intent: %+v", got)
	}
}

// TestIntentUnderWayIsNotOverwritten: a slow operation outlives any number of quick ones.
func TestIntentUnderWayIsNotOverwritten(t *testing.T) {
	r := create(t)
	in := NewIntents(r)
	end := in.Begin(&Intent{Unique: 1})
	for i := range uint64(3 * maxIntents) {
		in.Begin(&Intent{Unique: i + 2})(0)
	}
	if got := NewIntents(r).Left(1); got == nil || got.Over {
		t.Errorf("overwritten: %+v", got)
	}
	end(7)
	if got := NewIntents(r).Left(1); got != nil {
		t.Errorf("over for thousands of others, and still there: %+v", got)
	}
}

// TestIntentsOfSeveralWorkers: a worker goes on in the ring where the one before it was, so what that one left is still
// there for the one after; and of a request that was begun twice the last attempt counts.
func TestIntentsOfSeveralWorkers(t *testing.T) {
	r := create(t)
	NewIntents(r).Begin(&Intent{Unique: 1, Words: [8]uint64{1}})
	first := NewIntents(r)
	first.Begin(&Intent{Unique: 2, Words: [8]uint64{2}})
	second := NewIntents(r)
	second.Begin(&Intent{Unique: 1, Words: [8]uint64{3}})(4)
	third := NewIntents(r)
	if got := third.Left(1); got == nil || got.Words[0] != 3 || !got.Over || got.Result != 4 {
		t.Errorf("request 1: %+v", got)
	}
	if got := third.Left(2); got == nil || got.Words[0] != 2 || got.Over {
		t.Errorf("request 2: %+v", got)
	}
}

// FuzzTables reads tables out of arbitrary memory: whatever is in there, nothing but whole records comes out, and
// nothing fails.
func FuzzTables(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add([]byte("\x01\x00\x00\x00\x01\x00\x00\x00"), uint16(nodesAt%65536))
	r := create(f)
	f.Fuzz(func(t *testing.T, b []byte, where uint16) {
		for _, at := range []int{nodesAt, namesAt, handlesAt, locksAt, intentsAt, hInitLen} {
			off := at + int(where)%(8*nodeSize)
			n := copy(r.mem[off:off+len(b)], b)
			defer clear(r.mem[off : off+n])
		}
		for _, at := range []int{hNodesHigh, hNamesHigh, hHandlesHi, hLocksHigh} {
			r.store(at, uint64(where)<<1)
			defer r.store(at, 0)
		}
		recoverFrom(r.mem)
		NewIntents(r)
		r.Init()
	})
}

func TestHandleClosed(t *testing.T) {
	r := create(t)
	handles := NewHandles(r, nil)
	slot, _ := handles.Add(&Handle{Node: 1, Unique: 2})
	at := time.UnixMilli(time.Now().UnixMilli())
	read := func() *Handle {
		h, ok := handles.read(slot)
		if !ok {
			t.Fatal("the handle is gone")
		}
		return h
	}
	if h := read(); h.Kept || !h.Closed.IsZero() {
		t.Errorf("a new handle: kept %v, closed %v", h.Kept, h.Closed)
	}
	handles.SetClosed(slot, at)
	handles.SetKept(slot)
	if h := read(); !h.Kept || !h.Closed.Equal(at) {
		t.Errorf("kept %v, closed %v, want %v", h.Kept, h.Closed, at)
	}
	handles.SetClosed(slot, at.Add(time.Hour))
	if h := read(); !h.Kept || !h.Closed.Equal(at.Add(time.Hour)) {
		t.Errorf("kept %v, closed %v an hour later than %v", h.Kept, h.Closed, at)
	}
}

// A state that nothing was stored in takes no memory for its journal, and one with an intent is read.
func TestUntouchedJournal(t *testing.T) {
	r := create(t)
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(r.File().Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	before := blocks()
	journal := NewIntents(r)
	if after := blocks(); after != before {
		t.Errorf("looking for intents made %d blocks of memory", after-before)
	}
	journal.Begin(&Intent{Unique: 10, Op: 3})
	again, err := reopen(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if NewIntents(again).Left(10) == nil {
		t.Error("the intent is not there")
	}
}
