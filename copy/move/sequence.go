// SPDX-License-Identifier: Apache-2.0

package move

import "sync"

// Sequence puts what is done to an image into its order, while pieces are finished in any: up to where there is no gap, for
// a copy that may have to be resumed, and what the steps were, for whoever asks.
type Sequence struct {
	report func(Step) // nil: nobody asks for the steps

	mu    sync.Mutex
	next  int64              // the first piece that is not done
	end   int64              // offset up to which everything is done
	early map[int64]finished // ahead of their turn, by Seq
	last  Step               // not reported yet: the next one may continue it
}

type finished struct {
	end   int64
	steps []Step
}

// NewSequence begins at an offset. report gets every step, neighbours of one method merged; nil: nobody asks.
func NewSequence(start int64, report func(Step)) *Sequence {
	return &Sequence{report: report, end: start, early: make(map[int64]finished)}
}

// Add takes the next step of those who work in order and without pieces.
func (s *Sequence) Add(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = max(s.end, step.Off+step.Len)
	s.add(step)
}

// done takes note of a finished piece and of what became of it.
func (s *Sequence) done(p Piece, steps []Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early[p.Seq] = finished{p.End(), steps}
	for {
		f, ok := s.early[s.next]
		if !ok {
			return
		}
		delete(s.early, s.next)
		s.end = f.end
		s.next++
		for _, step := range f.steps {
			s.add(step)
		}
	}
}

func (s *Sequence) add(step Step) {
	if s.report == nil {
		return
	}
	if step.Method == s.last.Method && step.Why == s.last.Why && step.Off == s.last.Off+s.last.Len {
		s.last.Len += step.Len
		return
	}
	s.flush()
	s.last = step
}

// Flush reports what was held back.
func (s *Sequence) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
}

func (s *Sequence) flush() {
	if s.last.Len > 0 {
		s.report(s.last)
	}
	s.last = Step{}
}

// Reached is the offset before which everything is done.
func (s *Sequence) Reached() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}
