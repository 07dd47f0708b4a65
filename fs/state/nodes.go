// SPDX-License-Identifier: Apache-2.0

package state

import "encoding/binary"

// FileHandle is what name_to_handle_at(2) gives. The zero value means that there is none.
type FileHandle struct {
	Type  int32
	Bytes []byte
}

// Node is one record of the node table: an inode that the kernel knows, and how to find it again.
type Node struct {
	ID      uint64 // what the kernel calls it
	Lookups uint64 // how often the kernel was told of it, 0: it has forgotten it
	Dev     uint64
	Ino     uint64
	Mode    uint32 // file type bits
	Mount   uint16 // index of the mount that Handle belongs to
	Handle  FileHandle
	Backing int32 // backing id registered with the kernel, 0: none

	// Parent and Name find a file on a file system that has no file handles.
	Parent uint64
	Name   string
}

// MaxHandle is the longest file handle that a record holds (btrfs needs 40 bytes, XFS 24, ext4 8). A file with a longer
// one is found by parent and name.
const MaxHandle = 8 * word

// Words of a node record.
const (
	nCommit  = 0 * word
	nID      = 1 * word
	nLookups = 2 * word // sealed
	nDev     = 3 * word
	nIno     = 4 * word
	nBacking = 5 * word // sealed
	nMeta    = 6 * word // type 32 | length 8 | mount 8 | mode>>12 8 | unused 8
	nHandle  = 7 * word // 8 words
	nName    = 15 * word
)

// Nodes is the node table.
type Nodes struct {
	r     *Region
	slots slots
	names names
}

// NewNodes opens the node table. visit is called for each node that the predecessor left; what it is given is overwritten
// by the next.
func NewNodes(r *Region, visit func(slot uint32, n *Node)) *Nodes {
	t := &Nodes{
		r:     r,
		slots: slots{r: r, highAt: hNodesHigh, max: maxNodes},
		names: names{r: r, slots: slots{r: r, highAt: hNamesHigh, max: maxNames}},
	}
	used := map[uint32]bool{}
	// A hundred thousand nodes are read while nobody serves: nothing is allocated for each.
	var n Node
	var handle [MaxHandle]byte
	t.slots.scan(func(slot uint32) bool {
		name, ok := t.read(slot, &n, &handle)
		if !ok {
			return false
		}
		if name != 0 {
			used[name-1] = true
		}
		visit(slot, &n)
		return true
	})
	t.names.slots.scan(func(slot uint32) bool { return used[slot] })
	return t
}

func nodeAt(slot uint32) int { return nodesAt + int(slot)*nodeSize }

// Add records a node and gives it a slot and an id. ok is false if the table is full. The first node ever added is the
// root, with id 1.
func (t *Nodes) Add(n *Node) (slot uint32, ok bool) {
	slot, ok = t.slots.take()
	if !ok {
		return 0, false
	}
	off := nodeAt(slot)
	// A slot's ids carry a count of its uses, so that an id is never used again for another file. It begins anywhere: file
	// handles of an earlier mount lead nowhere.
	first := t.r.load(hFirstUse)
	if slot == 0 {
		first = 0 // the root
	}
	n.ID = uint64(slot+1) | nextUse(t.r.load(off+nID), first)<<32
	t.r.store(off+nCommit, 0)
	t.r.store(off+nID, n.ID)
	t.r.store(off+nLookups, seal(off+nLookups, n.Lookups))
	t.r.store(off+nDev, n.Dev)
	t.r.store(off+nIno, n.Ino)
	t.r.store(off+nBacking, seal(off+nBacking, 0))
	t.r.store(off+nMeta, nodeMeta(n))
	var handle [MaxHandle]byte
	copy(handle[:], n.Handle.Bytes)
	t.r.storeBytes(off+nHandle, handle[:])
	name := uint64(0)
	if n.Name != "" {
		if s, ok := t.names.add(n.Parent, n.Name); ok {
			name = uint64(s) + 1
		}
	}
	t.r.store(off+nName, seal(off+nName, name))
	t.r.store(off+nCommit, t.commit(off))
	return slot, true
}

func nextUse(id, first uint64) uint64 {
	if id == 0 {
		return first
	}
	return (id>>32 + 1) & 0xffffffff
}

func nodeMeta(n *Node) uint64 {
	return uint64(uint32(n.Handle.Type))<<32 | uint64(len(n.Handle.Bytes))<<24 | uint64(n.Mount&0xff)<<16 | uint64(n.Mode>>12&0xf)<<8
}

func (t *Nodes) commit(off int) uint64 {
	var w [12]uint64
	for i, at := range [...]int{nID, nDev, nIno, nMeta} {
		w[i] = t.r.load(off + at)
	}
	for i := range MaxHandle / word {
		w[4+i] = t.r.load(off + nHandle + i*word)
	}
	return commit(w[:]...)
}

// read reads the record in slot into n, its file handle into handle, and returns its name slot plus one. ok is false
// for a record that is not whole: it was never published, and no answer has named it.
func (t *Nodes) read(slot uint32, n *Node, handle *[MaxHandle]byte) (name uint32, ok bool) {
	off := nodeAt(slot)
	if c := t.r.load(off + nCommit); c == 0 || c != t.commit(off) {
		return 0, false
	}
	meta := t.r.load(off + nMeta)
	*n = Node{
		ID:    t.r.load(off + nID),
		Dev:   t.r.load(off + nDev),
		Ino:   t.r.load(off + nIno),
		Mount: uint16(meta >> 16 & 0xff),
		Mode:  uint32(meta>>8&0xf) << 12,
	}
	for i := range MaxHandle / word {
		binary.NativeEndian.PutUint64(handle[i*word:], t.r.load(off+nHandle+i*word))
	}
	if length := min(meta>>24&0xff, MaxHandle); length > 0 {
		n.Handle = FileHandle{Type: int32(meta >> 32), Bytes: handle[:length]}
	}
	n.Lookups = t.Lookups(slot)
	if b, ok := unseal(off+nBacking, t.r.load(off+nBacking)); ok {
		n.Backing = int32(b)
	}
	if s, ok := unseal(off+nName, t.r.load(off+nName)); ok && s != 0 {
		n.Parent, n.Name = t.names.read(uint32(s - 1))
		name = uint32(s)
	}
	return name, true
}

// Lookups is a node's lookup count.
func (t *Nodes) Lookups(slot uint32) uint64 {
	off := nodeAt(slot) + nLookups
	lookups, ok := unseal(off, t.r.load(off))
	if !ok {
		return 1 // it is known to the kernel; a reconciliation will find out more
	}
	return lookups
}

// SetLookups records a node's lookup count.
func (t *Nodes) SetLookups(slot uint32, n uint64) {
	off := nodeAt(slot) + nLookups
	t.r.store(off, seal(off, n))
}

// SetBacking records the backing id that is registered for a node, 0 for none.
func (t *Nodes) SetBacking(slot uint32, id int32) {
	off := nodeAt(slot) + nBacking
	t.r.store(off, seal(off, uint64(id)))
}

// SetName records where a node without a file handle is to be found now.
func (t *Nodes) SetName(slot uint32, parent uint64, name string) {
	s, ok := t.names.add(parent, name)
	if !ok {
		return
	}
	off := nodeAt(slot) + nName
	old, sealed := unseal(off, t.r.load(off))
	t.r.store(off, seal(off, uint64(s)+1))
	if sealed && old != 0 {
		t.names.remove(uint32(old - 1))
	}
}

// Used is how many nodes there are.
func (t *Nodes) Used() uint32 { return t.slots.used() }

// Full says whether one more node cannot be added.
func (t *Nodes) Full() bool { return t.slots.used() >= t.slots.max }

// MaxNodes is how many nodes there can be.
const MaxNodes = maxNodes

// Remove forgets a node.
func (t *Nodes) Remove(slot uint32) {
	off := nodeAt(slot)
	name, ok := unseal(off+nName, t.r.load(off+nName))
	t.r.store(off+nCommit, 0)
	if ok && name != 0 {
		t.names.remove(uint32(name - 1))
	}
	t.slots.put(slot)
}

// Read returns the record in a slot; ok is false if there is none.
func (t *Nodes) Read(slot uint32) (n *Node, ok bool) {
	n = new(Node)
	_, ok = t.read(slot, n, new([MaxHandle]byte))
	return n, ok
}
