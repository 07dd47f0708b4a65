// SPDX-License-Identifier: Apache-2.0

package state

import "sync"

// slots gives out the records of one table. Slots in use are told by the records themselves; this is only the memory of
// which ones are free, built anew by each worker.
type slots struct {
	r      *Region
	highAt int // header word: one past the highest slot ever used
	max    uint32

	mu   sync.Mutex
	free []uint32
}

// take returns a free slot, or false if the table is full.
func (s *slots) take() (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot, true
	}
	high := uint32(s.r.load(s.highAt))
	if high >= s.max {
		return 0, false
	}
	// The mark is raised before the record is written, so that a successor's scan reaches it.
	s.r.store(s.highAt, uint64(high+1))
	return high, true
}

func (s *slots) put(slot uint32) {
	s.mu.Lock()
	s.free = append(s.free, slot)
	s.mu.Unlock()
}

// used counts the slots that are not free.
func (s *slots) used() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint32(s.r.load(s.highAt)) - uint32(len(s.free))
}

// scan calls live for every slot below the mark and keeps those that it answers false for as free.
func (s *slots) scan(live func(slot uint32) bool) {
	high := min(uint32(s.r.load(s.highAt)), s.max)
	for slot := uint32(0); slot < high; slot++ {
		if !live(slot) {
			s.free = append(s.free, slot)
		}
	}
}
