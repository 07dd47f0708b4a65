// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// world is everything that a successor reads out of the memory.
type world struct {
	Nodes   map[uint32]Node
	Handles map[uint32]Handle
	Locks   map[uint32]Lock
}

func newWorld() *world {
	return &world{Nodes: map[uint32]Node{}, Handles: map[uint32]Handle{}, Locks: map[uint32]Lock{}}
}

func (w *world) clone() *world {
	return &world{Nodes: maps.Clone(w.Nodes), Handles: maps.Clone(w.Handles), Locks: maps.Clone(w.Locks)}
}

// recoverFrom reads the memory as a successor would. It changes nothing in it.
func recoverFrom(mem []byte) *world {
	r := &Region{mem: mem}
	w := newWorld()
	NewNodes(r, func(slot uint32, n *Node) {
		w.Nodes[slot] = *n
		if n.Handle.Bytes != nil {
			copied := w.Nodes[slot]
			copied.Handle.Bytes = slices.Clone(n.Handle.Bytes)
			w.Nodes[slot] = copied
		}
	})
	NewHandles(r, func(slot uint32, h *Handle) { w.Handles[slot] = *h })
	NewLocks(r, func(slot uint32, l *Lock) { w.Locks[slot] = *l })
	return w
}

// TestCutAtEveryStore runs random operations and, after every single store, reads the memory as if the worker had been
// killed there: what a successor sees is always the world before the operation or the world after it.
func TestCutAtEveryStore(t *testing.T) {
	r, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	nodes := NewNodes(r, nil)
	handles := NewHandles(r, nil)
	locks := NewLocks(r, nil)
	intents := NewIntents(r)

	before, after := newWorld(), newWorld()
	cuts, what := 0, ""
	r.stored = func() {
		cuts++
		got := recoverFrom(r.mem)
		if !reflect.DeepEqual(before, got) && !reflect.DeepEqual(after, got) {
			t.Fatalf("cut in %s: a successor sees neither the world before\n%s\nnor the one after\n%s",
				what, cmp.Diff(before, got), cmp.Diff(after, got))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		before = after
		after = before.clone()
		what = fmt.Sprintf("step %d", i)
		step(rng, after, nodes, handles, locks, intents)
		if diff := cmp.Diff(after, recoverFrom(r.mem)); diff != "" {
			t.Fatalf("after %s: %s", what, diff)
		}
	}
	if cuts < 10000 {
		t.Errorf("only %d cuts were looked at", cuts)
	}
}

// step does one random operation on the tables, having first written its outcome into w. What an Add will choose (slot,
// id) cannot be known before, so its outcome is found by doing it on a copy of the free lists: the same Add, asked what
// it would take.
func step(rng *rand.Rand, w *world, nodes *Nodes, handles *Handles, locks *Locks, intents *Intents) {
	const full = 12 // records of a kind; more would only take longer
	switch op := rng.IntN(12); {
	case op < 3 && len(w.Nodes) < full:
		addNode(rng, w, nodes)
	case op < 5 && len(w.Handles) < full:
		addHandle(rng, w, handles)
	case op == 5 && len(w.Locks) < full:
		addLock(rng, w, locks)
	case op == 6:
		for slot, n := range w.Nodes {
			n.Lookups = rng.Uint64N(1 << 40)
			w.Nodes[slot] = n
			nodes.SetLookups(slot, n.Lookups)
			return
		}
	case op == 7:
		for slot, n := range w.Nodes {
			n.Backing = rng.Int32N(1 << 30)
			w.Nodes[slot] = n
			nodes.SetBacking(slot, n.Backing)
			return
		}
	case op == 8:
		for slot, n := range w.Nodes {
			if n.Name != "" {
				n.Parent, n.Name = rng.Uint64(), randomName(rng)
				w.Nodes[slot] = n
				nodes.SetName(slot, n.Parent, n.Name)
				return
			}
		}
	case op == 9 || op < 3:
		for slot := range w.Nodes {
			delete(w.Nodes, slot)
			nodes.Remove(slot)
			return
		}
	case op == 10 || op < 5:
		for slot, h := range w.Handles {
			if rng.IntN(2) == 0 {
				h.Kept = true
				w.Handles[slot] = h
				handles.SetKept(slot)
			} else {
				delete(w.Handles, slot)
				handles.Remove(slot)
			}
			return
		}
	default:
		for slot := range w.Locks {
			delete(w.Locks, slot)
			locks.Remove(slot)
			break
		}
		intents.Begin(&Intent{Unique: rng.Uint64(), Op: 9, Words: [8]uint64{rng.Uint64()}})(rng.Uint32())
	}
}

func addNode(rng *rand.Rand, w *world, t *Nodes) {
	n := Node{Lookups: 1 + rng.Uint64N(9), Dev: rng.Uint64(), Ino: rng.Uint64(), Mode: 0o100000, Mount: uint16(rng.IntN(3))}
	if rng.IntN(3) == 0 {
		n.Parent, n.Name = rng.Uint64(), randomName(rng)
	} else {
		n.Handle = FileHandle{Type: rng.Int32(), Bytes: randomBytes(rng, 1+rng.IntN(MaxHandle))}
	}
	slot := next(&t.slots)
	first := t.r.load(hFirstUse)
	if slot == 0 {
		first = 0
	}
	n.ID = uint64(slot+1) | nextUse(t.r.load(nodeAt(slot)+nID), first)<<32
	w.Nodes[slot] = n
	t.Add(&n)
}

func addHandle(rng *rand.Rand, w *world, t *Handles) {
	h := Handle{Node: rng.Uint64(), Flags: rng.Uint32(), Mode: ModePassthrough, Unique: rng.Uint64(), PID: rng.Uint32(), Start: rng.Uint64(), Class: uint8(rng.Uint32())}
	slot := next(&t.slots)
	h.FH = uint64(slot+1) | nextUse(t.r.load(handleAt(slot)+haFH), 0)<<32
	w.Handles[slot] = h
	t.Add(&h)
}

func addLock(rng *rand.Rand, w *world, t *Locks) {
	l := Lock{Node: rng.Uint64(), Owner: rng.Uint64(), FH: rng.Uint64(), PID: rng.Uint32()}
	w.Locks[next(&t.slots)] = l
	t.Add(&l)
}

// next is the slot that take will give.
func next(s *slots) uint32 {
	if n := len(s.free); n > 0 {
		return s.free[n-1]
	}
	return uint32(s.r.load(s.highAt))
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func randomName(rng *rand.Rand) string { return string(randomBytes(rng, 1+rng.IntN(255))) }
