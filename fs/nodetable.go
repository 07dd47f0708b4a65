// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"imgward/fs/state"
	"imgward/guard"
)

// nodeTable finds nodes by id and by inode. The kernel's references keep a node in it: each answer that names a node
// counts one lookup, FORGET takes them back. A node that the kernel has forgotten stays for a while, see forgotten.go.
type nodeTable struct {
	records *state.Nodes
	mounts  *mounts
	budget  budget
	closeFd func(fd int) // close(2), which may take long
	// unregister is called with a node that the kernel has forgotten, before its record goes.
	unregister func(*node)
	// askToForget asks the kernel to forget nodes that nobody uses; false: it cannot be asked.
	askToForget func(ids []uint64) bool
	pruneAt     uint32 // how many nodes are many
	pruning     atomic.Bool
	hand        atomic.Uint32 // of the clock that goes round bySlot
	forgotten   atomic.Int64  // how many nodes there are that the kernel does not know

	// ending are records that a predecessor left of nodes that the kernel had forgotten.
	ending []ending

	slotsMu sync.RWMutex
	bySlot  []*node

	shards [shardCount]shard
	// indexed is closed when the shards have all that a predecessor left: that is found by id already.
	indexed chan struct{}
}

const shardCount = 64

type shard struct {
	mu    sync.Mutex
	byKey nodeIndex
}

// shard is where an inode's node is to be found.
func (t *nodeTable) shard(k guard.ID) *shard {
	<-t.indexed
	return t.shardOf(k)
}

func (t *nodeTable) shardOf(k guard.ID) *shard {
	return &t.shards[(k.Ino^k.Ino>>6^k.Dev)%shardCount]
}

// get finds a node by the kernel's id. ESTALE: no such node.
func (t *nodeTable) get(id uint64) (*node, syscall.Errno) {
	slot := uint32(id) - 1
	t.slotsMu.RLock()
	defer t.slotsMu.RUnlock()
	if int(slot) < len(t.bySlot) {
		if n := t.bySlot[slot]; n != nil && n.id == id {
			return n, 0
		}
	}
	return nil, syscall.ESTALE
}

func (t *nodeTable) set(slot uint32, n *node) {
	t.slotsMu.Lock()
	defer t.slotsMu.Unlock()
	for int(slot) >= len(t.bySlot) {
		t.bySlot = append(t.bySlot, make([]*node, max(64, len(t.bySlot)/4))...)
	}
	t.bySlot[slot] = n
}

// find returns the node of an inode without counting a lookup, nil if the kernel does not know it.
func (t *nodeTable) find(k guard.ID) *node {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.byKey.get(k); n != nil && t.lookups(n) > 0 {
		return n
	}
	return nil
}

// known counts a lookup of an inode whose node is held by a descriptor, so that (device, inode) cannot mean another
// file; nil if there is no such node. done is to be called when the descriptor is not needed any more.
func (t *nodeTable) known(k guard.ID) (n *node, fd int, done func()) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.byKey.get(k); n == nil {
		return nil, noFd, nil
	}
	fd, ok := n.path.use()
	if !ok {
		return nil, noFd, nil
	}
	t.count(n, t.lookups(n)+1)
	return n, fd, func() { t.used(n) }
}

// remember counts a lookup of the inode that fd (O_PATH) stands for, and makes a node of it if it is new. It takes fd
// over. parent and name are kept for file systems that have no file handles.
func (t *nodeTable) remember(fd int, st *syscall.Stat_t, parent *node, name string) (*node, syscall.Errno) {
	n, kept, no := t.enter(fd, st, parent, name)
	if !kept {
		t.closeFd(fd)
	}
	if no == 0 {
		t.crowded()
	}
	return n, no
}

// enter is remember but for closing fd, if it was not kept.
func (t *nodeTable) enter(fd int, st *syscall.Stat_t, parent *node, name string) (n *node, kept bool, no syscall.Errno) {
	room, mount := t.cacheable(), t.mounts.index(fd, st, parent)
	k := guard.ID{Dev: st.Dev, Ino: st.Ino}
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.byKey.get(k); n != nil && t.same(n, fd) {
		if n.named && !n.path.held() && n.id != rootID && plainName(name) {
			t.records.SetName(n.slot(), parent.id, name) // the one that it was known by may be gone
		}
		t.count(n, t.lookups(n)+1)
		return n, room && t.keep(n, fd), 0
	}
	rec := &state.Node{Lookups: 1, Dev: k.Dev, Ino: k.Ino, Mode: st.Mode & syscall.S_IFMT, Mount: mount, Handle: fileHandle(fd)}
	if rec.Mount == noMount || len(rec.Handle.Bytes) == 0 {
		rec.Handle = state.FileHandle{}
		rec.Parent, rec.Name = parent.id, name
	}
	slot, ok := t.records.Add(rec)
	if !ok {
		return nil, false, syscall.ENFILE
	}
	n = &node{id: rec.ID, key: k, kind: kindOf(rec.Mode), named: rec.Name != ""}
	s.byKey.put(n)
	t.set(slot, n)
	return n, room && t.keep(n, fd), 0
}

// same says whether a node's inode is the one that fd stands for. A node that holds a descriptor pins its inode; for
// another, the inode number may have been given to a new file since, and the handle tells them apart.
func (t *nodeTable) same(n *node, fd int) bool {
	if n.path.held() {
		return true
	}
	h := fileHandle(fd)
	rec, ok := t.records.Read(n.slot())
	return ok && h.Type == rec.Handle.Type && string(h.Bytes) == string(rec.Handle.Bytes)
}

// keep gives fd to the node. False: it has one.
func (t *nodeTable) keep(n *node, fd int) bool {
	if !n.path.put(fd) {
		return false
	}
	t.budget.cached.Add(1)
	return true
}

// lookups is how often the kernel has been told of a node that is in the table, 0: it has forgotten it; its shard is locked.
func (t *nodeTable) lookups(n *node) uint64 { return t.records.Lookups(n.slot()) }

// has says whether a node is in the table yet: its slot may be another's by now. Its shard is locked.
func (t *nodeTable) has(n *node) bool {
	now, _ := t.get(n.id)
	return now == n
}

// count sets how often the kernel has been told of a node; its shard is locked.
func (t *nodeTable) count(n *node, lookups uint64) {
	if t.isForgotten(n) {
		t.forgotten.Add(-1)
	}
	n.counted = n.counted || lookups > t.lookups(n)
	t.records.SetLookups(n.slot(), lookups)
}

// forget takes back lookups, and retires the node when none is left.
func (t *nodeTable) forget(id, lookups uint64) {
	n, no := t.get(id)
	if no != 0 || id == rootID {
		return
	}
	s := t.shard(n.key)
	s.mu.Lock()
	known := t.lookups(n)
	switch {
	case !t.has(n):
		s.mu.Unlock()
	case lookups < known:
		t.count(n, known-lookups)
		s.mu.Unlock()
	default:
		t.beginRetiring(s, n)
		s.mu.Unlock()
		t.retire(n)
	}
}

// all lists the nodes, those that the kernel has forgotten included.
func (t *nodeTable) all() []*node {
	t.slotsMu.RLock()
	defer t.slotsMu.RUnlock()
	list := make([]*node, 0, len(t.bySlot))
	for _, n := range t.bySlot {
		if n != nil {
			list = append(list, n)
		}
	}
	return list
}

// size is the number of nodes that the kernel knows, the root included.
func (t *nodeTable) size() int { return int(t.records.Used()) - int(t.forgotten.Load()) }

// noteMove notes where a node is to be found now, if it is found by parent and name.
func (t *nodeTable) noteMove(n *node, p place) {
	if rec, ok := t.records.Read(n.slot()); ok && len(rec.Handle.Bytes) == 0 {
		t.records.SetName(n.slot(), p.parent.id, p.name)
	}
}
