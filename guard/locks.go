// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"sync"

	"imgward/guard/qlock"
)

// Locks are the locks on an image as they look from one handle.
type Locks struct {
	Own qlock.Held // QEMU's, taken through it
	// Exclusive: one of its own keeps others from writing: QEMU's that lets nobody else write, or a write lock.
	Exclusive bool
	Others    qlock.Held // QEMU's of everybody else
	PID       int        // the process that has taken them, which may not be the one that opened the image; 0: not known
}

// locks asks what has been locked through a handle.
func (o *Opener) locks() Locks {
	if o.Locks == nil {
		return Locks{}
	}
	return o.Locks()
}

// lockedBy are the openers, but for the caller, that hold QEMU's locks.
func (q *question) lockedBy() []Opener {
	var found []Opener
	for i := range q.Openers {
		if o := &q.Openers[i]; !o.is(q.caller) && o.locks().Own.Any() {
			found = append(found, *o)
		}
	}
	return found
}

// othersLocks are QEMU's locks on the image but for the caller's own. Those of the view's clients are held by the view
// on the backing file, so a probe from outside cannot tell whose they are; a probe from the caller's handle leaves its own
// out. Of several handles each sees the others' locks, so what one of them does not see is the caller's.
func (q *question) othersLocks() qlock.Held {
	held := q.fileState().locks
	for i := range q.Openers {
		o := &q.Openers[i]
		if !o.is(q.caller) {
			continue
		}
		if l := o.locks(); l.Own.Any() {
			held.Used &= l.Others.Used
			held.Unshared &= l.Others.Unshared
		}
	}
	return held
}

// lockUses is evidence by QEMU's image locks: qemu-img, that works on the image through the view, or somebody beside it.
func (q *question) lockUses() []Use {
	if found := q.lockedBy(); len(found) > 0 {
		o := &found[0]
		return []Use{{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceLock}}
	}
	return q.besideLocks()
}

// besideLocks is evidence by locks that nobody has taken through the view: QEMU on another host, or in a container.
func (q *question) besideLocks() []Use {
	held := q.othersLocks()
	if !held.Any() || len(q.lockedBy()) > 0 {
		return nil
	}
	return []Use{{Role: RoleUnknown, Writable: held.Used&qlock.Write != 0, Evidence: EvidenceLock}}
}

// locksHonoured says whether those that use the image take locks on it, so that another VMM is kept from writing by its
// own. A migration's source has let go of them, and may have opened the image anew for reading: what it was seen to do
// before is remembered.
func (q *question) locksHonoured() bool {
	if q.othersLocks().Any() {
		return true
	}
	vmms := q.openVMMs()
	for _, o := range vmms {
		if !o.Locked && !q.g.lockers.has(&o.Process) {
			return false
		}
	}
	return len(vmms) > 0
}

// TakesLocks implements Checker.
func (g *Guard) TakesLocks(pid int, uid uint32) {
	if p := g.Classify(pid, uid); p.Class == ClassVMM {
		g.lockers.add(&p)
	}
}

// lockers are VMMs that were seen to take locks on images.
type lockers struct {
	mu    sync.Mutex
	known map[lockerKey]struct{}
}

type lockerKey struct {
	pid   int
	start uint64
}

const maxLockers = 4096

func (l *lockers) add(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxLockers { // they are seen again
		l.known = make(map[lockerKey]struct{})
	}
	l.known[lockerKey{p.PID, p.Start}] = struct{}{}
}

func (l *lockers) has(p *Process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.known[lockerKey{p.PID, p.Start}]
	return ok
}
