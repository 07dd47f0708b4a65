// SPDX-License-Identifier: Apache-2.0

package state

import "sync"

// Intent is written before an operation that must not be done twice, and says what the world looked like then. When
// the kernel sends the same request to a successor, the successor compares and knows whether the deed was done.
type Intent struct {
	Unique uint64
	Op     uint16
	// Words are the operation's own: inode numbers before the deed, a size, …
	Words [8]uint64
	// Over is set once the deed was done or had failed, and Result is what End was given then. A worker that is killed
	// between the two leaves an intent that is not over, and its successor has to compare.
	Over   bool
	Result uint32

	seq uint64 // rises from one intent to the next, through all workers
}

const (
	inCommit = 0 * word
	inUnique = 1 * word
	inOp     = 2 * word // seq 48 | op 16
	inWords  = 3 * word
	inResult = 11 * word // sealed: over 1 | result 32; 0 before the deed
)

const overBit = 1 << 32

// Intents is the journal. A finished intent stays readable until thousands of later ones have come, because the answer
// is written to the kernel only after the operation's own code has returned; later ones of the successor, too, for it
// goes on where the predecessor was in the ring.
type Intents struct {
	r    *Region
	mu   sync.Mutex
	next uint32
	seq  uint64
	busy [maxIntents]bool
	left map[uint64]*Intent // by unique, from the predecessor
}

// lookBack is how many intents before the last one may belong to requests whose answer never arrived. Older ones have
// been answered, unless they were not over.
const lookBack = 4096

// NewIntents opens the journal and reads what the predecessors left. A request that was begun by several of them is
// what the last one wrote. The kernel waits meanwhile, so what cannot matter any more is not even checked.
func NewIntents(r *Region) *Intents {
	t := &Intents{r: r, left: map[uint64]*Intent{}}
	if r.untouched(intentsAt, totalSize) {
		return t // to look at them would make memory of them, 2 MiB
	}
	for slot := range uint32(maxIntents) {
		off := intentAt(slot)
		if seq := r.load(off+inOp) >> 16; r.load(off+inCommit) != 0 && seq >= t.seq {
			t.seq, t.next = seq, slot+1
		}
	}
	for slot := range uint32(maxIntents) {
		off := intentAt(slot)
		if seq := r.load(off+inOp) >> 16; r.load(off+inCommit) == 0 || seq+lookBack < t.seq && r.load(off+inResult) != 0 {
			continue
		}
		in, ok := t.read(slot)
		if !ok {
			continue
		}
		if old := t.left[in.Unique]; old == nil || old.seq < in.seq {
			t.left[in.Unique] = in
		}
	}
	return t
}

func intentAt(slot uint32) int { return intentsAt + int(slot)*intentSize }

// Begin writes an intent. end must be called once the operation's outcome is known, with a number that tells a
// successor what to answer.
func (t *Intents) Begin(in *Intent) (end func(result uint32)) {
	slot, seq := t.take()
	off := intentAt(slot)
	t.r.store(off+inCommit, 0)
	t.r.store(off+inUnique, in.Unique)
	t.r.store(off+inOp, seq<<16|uint64(in.Op))
	for i, w := range in.Words {
		t.r.store(off+inWords+i*word, w)
	}
	t.r.store(off+inResult, 0)
	t.r.store(off+inCommit, t.commit(off))
	return func(result uint32) {
		t.r.store(off+inResult, seal(off+inResult, overBit|uint64(result)))
		t.mu.Lock()
		t.busy[slot] = false
		t.mu.Unlock()
	}
}

// take goes round the ring, past the intents that are still under way. There are far fewer of those than slots: one
// for each request that the daemon works on.
func (t *Intents) take() (slot uint32, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.busy[t.next%maxIntents] {
		t.next++
	}
	slot = t.next % maxIntents
	t.busy[slot] = true
	t.next++
	t.seq++
	return slot, t.seq
}

// Left returns the intent that a predecessor wrote for the request, nil if none began it.
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
	op := t.r.load(off + inOp)
	in := &Intent{Unique: t.r.load(off + inUnique), Op: uint16(op), seq: op >> 16}
	if result, ok := unseal(off+inResult, t.r.load(off+inResult)); ok {
		in.Over, in.Result = result&overBit != 0, uint32(result)
	}
	for i := range in.Words {
		in.Words[i] = t.r.load(off + inWords + i*word)
	}
	return in, true
}
