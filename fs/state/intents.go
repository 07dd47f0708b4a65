package state

import "sync"

// Intent is written before an operation that must not be done twice, and says what the world looked like then. When
// the kernel sends the same request to a successor, the successor compares and knows whether the deed was done.
type Intent struct {
	Unique uint64
	Op     uint32
	// Words are the operation's own: inode numbers before the deed, a size, …
	Words [8]uint64
}

const (
	inCommit = 0 * word
	inUnique = 1 * word
	inOp     = 2 * word
	inWords  = 3 * word
)

// Intents is the journal. A finished intent stays readable until thousands of later ones have come, because the answer
// is written to the kernel only after the operation's own code has returned.
type Intents struct {
	r    *Region
	mu   sync.Mutex
	next uint32
	busy [maxIntents]bool
	left map[uint64]*Intent // by unique, from the predecessor
}

// NewIntents opens the journal and reads what the predecessor left.
func NewIntents(r *Region) *Intents {
	t := &Intents{r: r, left: map[uint64]*Intent{}}
	for slot := range uint32(maxIntents) {
		if in, ok := t.read(slot); ok {
			t.left[in.Unique] = in
		}
	}
	return t
}

func intentAt(slot uint32) int { return intentsAt + int(slot)*intentSize }

// Begin writes an intent. End must be called once the operation's outcome is known.
func (t *Intents) Begin(in *Intent) (end func()) {
	slot := t.take()
	off := intentAt(slot)
	t.r.store(off+inCommit, 0)
	t.r.store(off+inUnique, in.Unique)
	t.r.store(off+inOp, uint64(in.Op))
	for i, w := range in.Words {
		t.r.store(off+inWords+i*word, w)
	}
	t.r.store(off+inCommit, t.commit(off))
	return func() {
		t.mu.Lock()
		t.busy[slot] = false
		t.mu.Unlock()
	}
}

// take goes round the ring, past the intents that are still under way. There are far fewer of those than slots: one
// for each request that the daemon works on.
func (t *Intents) take() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.busy[t.next%maxIntents] {
		t.next++
	}
	slot := t.next % maxIntents
	t.busy[slot] = true
	t.next++
	return slot
}

// Left returns the intent that a predecessor wrote for the request, nil if it never began it.
func (t *Intents) Left(unique uint64) *Intent { return t.left[unique] }

func (t *Intents) commit(off int) uint64 {
	var w [10]uint64
	for i := range w {
		w[i] = t.r.load(off + inUnique + i*word)
	}
	return commit(w[:]...)
}

func (t *Intents) read(slot uint32) (*Intent, bool) {
	off := intentAt(slot)
	if c := t.r.load(off + inCommit); c == 0 || c != t.commit(off) {
		return nil, false
	}
	in := &Intent{Unique: t.r.load(off + inUnique), Op: uint32(t.r.load(off + inOp))}
	for i := range in.Words {
		in.Words[i] = t.r.load(off + inWords + i*word)
	}
	return in, true
}
