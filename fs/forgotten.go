// SPDX-License-Identifier: Apache-2.0

package viewfs

import "syscall"

// What the kernel has forgotten, others may still ask for: a file handle of the view (name_to_handle_at(2), an NFS
// client's) is a node's id, and the kernel looks up "." in it. So a node outlives being forgotten, with its record and
// without any descriptor, and is found again by the backing file's handle: the same file or none, for that holds the
// file's generation. It is the same node for whoever comes by name, so a file has one id. A successor finds it by its
// record, in which no lookups are counted.

// maxForgotten is how many nodes are remembered that the kernel has forgotten; each takes some 500 bytes (measured).
const maxForgotten = 64 << 10

// isForgotten says that the kernel does not know a node and that it holds nothing; its shard is locked.
func (t *nodeTable) isForgotten(n *node) bool { return t.lookups(n) == 0 && n.retiring == 0 }

// beginRetiring takes back all lookups of a node; its shard is locked. Then retire is to be called, when it is not.
func (t *nodeTable) beginRetiring(s *shard, n *node) {
	if t.isForgotten(n) {
		t.forgotten.Add(-1)
	}
	n.retiring++
	t.records.SetLookups(n.slot(), 0)
	if n.named {
		t.remove(s, n) // its name alone may lead to another file
	}
}

// retire gives up what a node held of which no lookups are left. If it was the last to hold a removed file, its blocks
// are freed here, which may take minutes; so nothing is locked. Meanwhile, the kernel may have come to know it again.
func (t *nodeTable) retire(n *node) {
	t.unregister(n)
	var st syscall.Stat_t
	removed := n.named
	if fd, ok := n.path.use(); ok {
		removed = removed || fstat(fd, &st) == nil && st.Nlink == 0
		t.used(n)
	}
	closing, had := n.path.take()
	if had {
		t.budget.cached.Add(-1)
	}
	if closing != noFd {
		t.closeFd(closing)
	}
	s := t.shard(n.key)
	s.mu.Lock()
	n.retiring--
	if t.isForgotten(n) {
		t.forgotten.Add(1)
		if removed || t.records.Used() >= t.pruneAt { // see crowded
			t.end(s, n)
		}
	}
	s.mu.Unlock()
	t.evict(maxForgotten)
}

// rememberID counts a lookup of a node that the kernel may have forgotten. ESTALE: nothing is known of it any more.
func (t *nodeTable) rememberID(id uint64) (*node, syscall.Errno) {
	n, no := t.get(id)
	if no != 0 {
		return nil, no
	}
	s := t.shard(n.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.has(n) {
		return nil, syscall.ESTALE
	}
	t.count(n, t.lookups(n)+1)
	return n, 0
}

// remove takes a node out of the table; its shard is locked.
func (t *nodeTable) remove(s *shard, n *node) {
	s.byKey.remove(n)
	t.set(n.slot(), nil)
}

// end gives up a forgotten node and its record; its shard is locked.
func (t *nodeTable) end(s *shard, n *node) {
	t.remove(s, n)
	t.records.Remove(n.slot())
	t.forgotten.Add(-1)
}

// evict ends forgotten nodes if there are more than keep.
func (t *nodeTable) evict(keep int64) {
	for t.forgotten.Load() > keep {
		n := t.next()
		if n == nil {
			return
		}
		s := t.shard(n.key)
		s.mu.Lock()
		if t.has(n) && t.isForgotten(n) {
			t.end(s, n)
		}
		s.mu.Unlock()
	}
}

// next is the clock's next node.
func (t *nodeTable) next() *node {
	t.slotsMu.RLock()
	defer t.slotsMu.RUnlock()
	for range t.bySlot {
		if n := t.bySlot[int(t.hand.Add(1))%len(t.bySlot)]; n != nil {
			return n
		}
	}
	return nil
}
