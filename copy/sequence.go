package imgcopy

import "sync"

// sequence tells up to where an image has been copied without a gap, while its pieces are finished in any order.
type sequence struct {
	mu    sync.Mutex
	next  int64           // the first piece that is not done
	end   int64           // offset up to which everything is done
	early map[int64]int64 // finished ahead of their turn: seq → end offset
}

func newSequence(start int64) *sequence {
	return &sequence{end: start, early: make(map[int64]int64)}
}

// reach says that everything before end is done, for those who work in order and without pieces.
func (s *sequence) reach(end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = max(s.end, end)
}

// done takes note of a finished piece.
func (s *sequence) done(p piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early[p.seq] = p.end()
	for {
		end, ok := s.early[s.next]
		if !ok {
			return
		}
		delete(s.early, s.next)
		s.end = end
		s.next++
	}
}

// reached is the offset before which everything is done.
func (s *sequence) reached() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}
