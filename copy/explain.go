package imgcopy

import "sync"

// teller passes steps on in the order of the image, neighbours of one method merged, while pieces are finished in any
// order. A nil teller does nothing.
type teller struct {
	tell func(Step)
	mu   sync.Mutex
	next int64            // the first piece that has not been told
	kept map[int64][]Step // of pieces ahead of their turn
	last Step             // not told yet: the next one may continue it
}

// newTeller returns nil if nobody listens.
func newTeller(tell func(Step)) *teller {
	if tell == nil {
		return nil
	}
	return &teller{tell: tell, kept: make(map[int64][]Step)}
}

// piece takes note of what became of a piece.
func (t *teller) piece(seq int64, steps []Step) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept[seq] = steps
	for {
		steps, ok := t.kept[t.next]
		if !ok {
			return
		}
		delete(t.kept, t.next)
		t.next++
		for _, s := range steps {
			t.merge(s)
		}
	}
}

// merge takes the next step in order.
func (t *teller) merge(s Step) {
	if t == nil {
		return
	}
	if s.Method == t.last.Method && s.Why == t.last.Why && s.Off == t.last.Off+t.last.Len {
		t.last.Len += s.Len
		return
	}
	t.flush()
	t.last = s
}

// flush tells what was held back.
func (t *teller) flush() {
	if t == nil || t.last.Len == 0 {
		return
	}
	t.tell(t.last)
	t.last = Step{}
}
