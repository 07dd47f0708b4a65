// SPDX-License-Identifier: Apache-2.0

package state

import "encoding/binary"

// names holds parent and name of the few nodes that have no file handle.
type names struct {
	r     *Region
	slots slots
}

const (
	naCommit = 0 * word
	naParent = 1 * word
	naLen    = 2 * word
	naBytes  = 3 * word
	// maxName is NAME_MAX of every Linux file system, 255 bytes.
	maxName = 256
)

func nameAt(slot uint32) int { return namesAt + int(slot)*nameSize }

func (t *names) add(parent uint64, name string) (uint32, bool) {
	if len(name) > maxName {
		return 0, false
	}
	slot, ok := t.slots.take()
	if !ok {
		return 0, false
	}
	off := nameAt(slot)
	t.r.store(off+naCommit, 0)
	t.r.store(off+naParent, parent)
	t.r.store(off+naLen, uint64(len(name)))
	t.r.storeBytes(off+naBytes, []byte(name))
	t.r.store(off+naCommit, t.commit(off, len(name)))
	return slot, true
}

func (t *names) commit(off, length int) uint64 {
	n := (length + word - 1) / word
	words := make([]uint64, 0, 2+maxName/word)
	words = append(words, t.r.load(off+naParent), t.r.load(off+naLen))
	for i := range n {
		words = append(words, t.r.load(off+naBytes+i*word))
	}
	return commit(words...)
}

func (t *names) read(slot uint32) (parent uint64, name string) {
	if slot >= maxNames {
		return 0, ""
	}
	off := nameAt(slot)
	length := t.r.load(off + naLen)
	if length > maxName || t.r.load(off+naCommit) != t.commit(off, int(length)) {
		return 0, ""
	}
	var buf [maxName]byte
	for i := 0; i < int(length); i += word {
		binary.NativeEndian.PutUint64(buf[i:], t.r.load(off+naBytes+i))
	}
	return t.r.load(off + naParent), string(buf[:length])
}

func (t *names) remove(slot uint32) {
	t.r.store(nameAt(slot)+naCommit, 0)
	t.slots.put(slot)
}
