// SPDX-License-Identifier: Apache-2.0

package state

// Lock is one record of the lock table: an owner of locks on a file, and a handle that it has locked through. The locks
// themselves are on a descriptor that the keeper holds.
type Lock struct {
	Node  uint64
	Owner uint64 // the kernel's number for a process or an open file
	FH    uint64
	PID   uint32
}

const (
	loCommit = 0 * word
	loNode   = 1 * word
	loOwner  = 2 * word
	loFH     = 3 * word
	loPID    = 4 * word
)

// Locks is the lock table.
type Locks struct {
	r     *Region
	slots slots
}

// NewLocks opens the lock table. visit is called for each record that the predecessor left.
func NewLocks(r *Region, visit func(slot uint32, l *Lock)) *Locks {
	t := &Locks{r: r, slots: slots{r: r, highAt: hLocksHigh, max: maxLocks}}
	t.slots.scan(func(slot uint32) bool {
		l, ok := t.read(slot)
		if ok {
			visit(slot, l)
		}
		return ok
	})
	return t
}

func lockAt(slot uint32) int { return locksAt + int(slot)*lockSize }

// Add records a lock owner. ok is false if the table is full.
func (t *Locks) Add(l *Lock) (slot uint32, ok bool) {
	slot, ok = t.slots.take()
	if !ok {
		return 0, false
	}
	off := lockAt(slot)
	t.r.store(off+loCommit, 0)
	t.r.store(off+loNode, l.Node)
	t.r.store(off+loOwner, l.Owner)
	t.r.store(off+loFH, l.FH)
	t.r.store(off+loPID, uint64(l.PID))
	t.r.store(off+loCommit, t.commit(off))
	return slot, true
}

func (t *Locks) commit(off int) uint64 {
	return commit(t.r.load(off+loNode), t.r.load(off+loOwner), t.r.load(off+loFH), t.r.load(off+loPID))
}

func (t *Locks) read(slot uint32) (*Lock, bool) {
	off := lockAt(slot)
	if c := t.r.load(off + loCommit); c == 0 || c != t.commit(off) {
		return nil, false
	}
	return &Lock{
		Node:  t.r.load(off + loNode),
		Owner: t.r.load(off + loOwner),
		FH:    t.r.load(off + loFH),
		PID:   uint32(t.r.load(off + loPID)),
	}, true
}

// Remove forgets a record.
func (t *Locks) Remove(slot uint32) {
	t.r.store(lockAt(slot)+loCommit, 0)
	t.slots.put(slot)
}
