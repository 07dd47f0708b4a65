// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
	"imgward/guard/qlock"
)

// handle is a file or directory that the kernel has open.
type handle struct {
	fh     uint64
	slot   uint32
	node   *node
	fd     int // a real descriptor, opened with the caller's flags
	flags  int
	mode   state.HandleMode
	unique uint64
	opener guard.Process
	since  time.Time
	kept   bool // the keeper has fd too; guarded by node.mu
	// leaving is until when its RELEASE may be on its way, for one of its descriptors was closed while there were locks; guarded
	// by node.mu.
	leaving time.Time
	late    late // of a predecessor's handle: fd is yet to be opened

	dir *dirStream // of a directory
}

func (h *handle) writable() bool { return h.flags&unix.O_ACCMODE != unix.O_RDONLY }

// openState is what an inode has while handles of it are open; guarded by node.mu.
type openState struct {
	handles []*handle
	passed  bool // reads and writes go by the node's backing id; else through the daemon
	direct  *directFallback
	locks   map[uint64]*lockOwner
	changed chan struct{} // closed when a handle goes; nil while nobody waits for that
}

// handleTable finds handles by the kernel's number.
type handleTable struct {
	records *state.Handles
	budget  *budget
	mu      sync.RWMutex
	byFH    map[uint64]*handle
	// opening is called with a handle that is about to be used.
	opening func(*handle)
	// answers maps the request that opened a handle to it, for requests that a successor handles again.
	answers map[uint64]*handle
}

// classes are numbered for the state; new ones go to the end.
var classes = []guard.Class{"", guard.ClassVMM, guard.ClassManager, guard.ClassTrusted, guard.ClassOutsider}

func classOf(number uint8) guard.Class {
	if int(number) < len(classes) {
		return classes[number]
	}
	return ""
}

// get finds a handle for use. EBADF: no such handle.
func (t *handleTable) get(fh uint64) (*handle, syscall.Errno) {
	h, no := t.peek(fh)
	if no == 0 && h.late.pending.Load() {
		t.opening(h)
	}
	return h, no
}

// peek finds a handle whose descriptor is not needed, and may not be there.
func (t *handleTable) peek(fh uint64) (*handle, syscall.Errno) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h := t.byFH[fh]; h != nil {
		return h, 0
	}
	return nil, syscall.EBADF
}

// add records a handle, which from then on outlives the process. ENFILE: the table is full.
func (t *handleTable) add(h *handle) syscall.Errno {
	rec := &state.Handle{
		Node:   h.node.id,
		Flags:  uint32(h.flags &^ (unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC)),
		Mode:   h.mode,
		Class:  uint8(slices.Index(classes, h.opener.Class)), // one that is not in the list: unknown
		Unique: h.unique,
		PID:    uint32(h.opener.PID),
		Start:  h.opener.Start,
		Opened: uint32(h.since.Unix()),
	}
	slot, ok := t.records.Add(rec)
	if !ok {
		return syscall.ENFILE
	}
	h.fh, h.slot = rec.FH, slot
	t.budget.taken.Add(1)
	t.mu.Lock()
	t.byFH[h.fh] = h
	t.mu.Unlock()
	return 0
}

func (t *handleTable) remove(h *handle) {
	t.mu.Lock()
	delete(t.byFH, h.fh)
	delete(t.answers, h.unique)
	t.mu.Unlock()
	t.records.Remove(h.slot)
	t.budget.taken.Add(-1)
}

// openNodes lists the nodes of which files are open.
func (t *handleTable) openNodes() []*node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	seen := make(map[*node]bool, len(t.byFH))
	list := make([]*node, 0, len(t.byFH))
	for _, h := range t.byFH {
		if h.dir == nil && !seen[h.node] {
			seen[h.node] = true
			list = append(list, h.node)
		}
	}
	return list
}

func (t *handleTable) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byFH)
}

// answer is the handle that a predecessor opened for a request whose answer never arrived.
func (t *handleTable) answer(unique uint64) *handle {
	if unique&resendBit == 0 {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.answers[unique&^resendBit]
}

// resendBit marks a request that a predecessor may have begun (loop.go; the kernel's own numbers are far smaller).
const resendBit = 1 << 63

// handleName and lockName are what the keeper calls descriptors: short, because all names together are one environment
// string of the successor, and the kernel allows 128 KiB for that.
func handleName(slot uint32) string { return "h" + strconv.FormatUint(uint64(slot), 36) }
func lockName(slot uint32) string   { return "l" + strconv.FormatUint(uint64(slot), 36) }

// slotOf is the slot in a name that handleName or lockName made; false: neither did.
func slotOf(name string) (uint32, bool) {
	if name == "" {
		return 0, false
	}
	slot, err := strconv.ParseUint(name[1:], 36, 32)
	return uint32(slot), err == nil && (name == handleName(uint32(slot)) || name == lockName(uint32(slot)))
}

// attach adds a handle to its node; node.mu is held.
func (n *node) attach(h *handle) {
	a := n.activity()
	if a.open == nil {
		a.open = &openState{}
	}
	a.open.handles = append(a.open.handles, h)
	if h.writable() {
		a.writers.Add(1)
	}
}

// openers lists who has the image open.
func (n *node) openers() []guard.Opener {
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		return nil
	}
	list := make([]guard.Opener, 0, len(a.open.handles))
	for _, h := range a.open.handles {
		o := guard.Opener{
			Process: h.opener,
			Write:   h.writable(),
			Checked: h.mode&state.ModeChecked != 0,
			InUse:   h.mode&state.ModeWhileInUse != 0,
			Stream:  h.flags&unix.O_ACCMODE == unix.O_WRONLY || h.flags&unix.O_APPEND != 0,
			Since:   h.since,
		}
		if len(a.open.lockedThrough(h)) > 0 {
			o.Locked, o.Locks = true, func() guard.Locks { return n.locksThrough(h) }
		}
		list = append(list, o)
	}
	return list
}

// lockedThrough lists the owners that have taken locks through a handle; the node is locked.
func (o *openState) lockedThrough(h *handle) (owners []*lockOwner) {
	for _, own := range o.locks {
		if _, ok := own.handles[h.fh]; ok {
			owners = append(owners, own)
		}
	}
	return owners
}

// locksThrough looks at the locks of a handle's owners, and past them. What cannot be looked at is not locked.
func (n *node) locksThrough(h *handle) (l guard.Locks) {
	a := n.activity()
	a.mu.Lock() // the owners' descriptors are closed when they are in no list any more
	defer a.mu.Unlock()
	if a.open == nil {
		return l
	}
	for i, own := range a.open.lockedThrough(h) {
		held, exclusive, _ := qlock.OwnFD(own.fd)
		l.Own.Used |= held.Used
		l.Own.Unshared |= held.Unshared
		l.Exclusive = l.Exclusive || exclusive
		if held.Any() || exclusive {
			l.PID = int(own.pid)
		}
		others, _ := qlock.ProbeFD(own.fd)
		if i == 0 {
			l.Others = others
		}
		l.Others.Used &= others.Used
		l.Others.Unshared &= others.Unshared
	}
	return l
}

// keepDescriptor gives a handle's descriptor to the keeper, because it cannot be had again; node.mu is held.
func (fs *FS) keepDescriptor(h *handle) syscall.Errno {
	if h.kept {
		return 0
	}
	fs.handles.records.SetKept(h.slot)
	if err := fs.keeper.Keep(handleName(h.slot), h.fd); err != nil {
		fs.log.Warn("cannot keep a descriptor for a successor", "error", err)
		return syscall.ENOLCK
	}
	h.kept = true
	return 0
}

// release closes a handle. What it closes may take long, and is closed when nothing is locked.
func (fs *FS) release(h *handle) {
	closing, ok := fs.detach(h)
	if !ok {
		return
	}
	h.close(fs.nodes.closeFd)
	for _, fd := range closing {
		fs.nodes.closeFd(fd)
	}
	if fs.backingNeedsFile.Load() {
		fs.unregister(h.node)
	}
}

// detach takes a handle from its node and its table, and returns what else is to be closed. False: it has been taken
// already.
func (fs *FS) detach(h *handle) (closing []int, ok bool) {
	n := h.node
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		return nil, false
	}
	i := slices.Index(a.open.handles, h)
	if i < 0 {
		return nil, false
	}
	closing = fs.dropLocks(n, h)
	a.open.handles = slices.Delete(a.open.handles, i, i+1)
	if h.writable() {
		a.writers.Add(-1)
	}
	if h.kept {
		fs.keeper.Drop(handleName(h.slot)) // before the slot is free, and with it the name
	}
	fs.handles.remove(h)
	a.closings.Add(1)
	if a.open.changed != nil {
		close(a.open.changed)
		a.open.changed = nil
	}
	if len(a.open.handles) == 0 {
		if d := a.open.direct; d != nil && d.err == nil {
			closing = append(closing, d.fd)
		}
		a.open = nil
	}
	return closing, true
}
