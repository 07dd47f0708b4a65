package state

// Handle is one record of the handle table: a file or directory that the kernel has open.
type Handle struct {
	FH    uint64 // what the kernel calls it
	Node  uint64
	Flags uint32 // open(2) flags, without O_CREAT, O_EXCL and O_TRUNC
	Mode  HandleMode
	// Unique is the request that opened it. If that request is sent again, its answer never arrived, and this
	// handle is the answer.
	Unique uint64
	PID    uint32 // opener, as a thread group id
	Opened uint32 // seconds since 1970
	Start  uint64 // the opener's start time, in clock ticks since boot
	Class  uint8  // the opener's, as the guard saw it then; the numbers are the caller's
	Kept   bool   // its descriptor is with the keeper: it carries locks, or its file has no name
}

// HandleMode is how a handle's reads and writes travel.
type HandleMode uint32

// The bits of HandleMode.
const (
	ModeDir         HandleMode = 1 << iota // a directory
	ModePassthrough                        // by the kernel, straight to the backing file
	ModeChecked                            // by the daemon, each write judged
	ModeLocks                              // Kept, because locks are held through it
)

const modeMask = 1<<24 - 1

// Words of a handle record.
const (
	haCommit = 0 * word
	haFH     = 1 * word
	haNode   = 2 * word
	haFlags  = 3 * word // flags 32 | class 8 | mode 24
	haUnique = 4 * word
	haOpener = 5 * word // pid 32 | opened 32
	haStart  = 6 * word
	haKept   = 7 * word // sealed
)

// Handles is the handle table.
type Handles struct {
	r     *Region
	slots slots
}

// NewHandles opens the handle table. visit is called for each handle that the predecessor left.
func NewHandles(r *Region, visit func(slot uint32, h *Handle)) *Handles {
	t := &Handles{r: r, slots: slots{r: r, highAt: hHandlesHi, max: maxHandles}}
	t.slots.scan(func(slot uint32) bool {
		h, ok := t.read(slot)
		if ok {
			visit(slot, h)
		}
		return ok
	})
	return t
}

func handleAt(slot uint32) int { return handlesAt + int(slot)*handleSize }

// Add records a handle and gives it a slot and a number that is never used again. ok is false if the table is full.
func (t *Handles) Add(h *Handle) (slot uint32, ok bool) {
	slot, ok = t.slots.take()
	if !ok {
		return 0, false
	}
	off := handleAt(slot)
	h.FH = uint64(slot+1) | nextUse(t.r.load(off+haFH), slot)<<32
	t.r.store(off+haCommit, 0)
	t.r.store(off+haFH, h.FH)
	t.r.store(off+haNode, h.Node)
	t.r.store(off+haFlags, uint64(h.Flags)<<32|uint64(h.Class)<<24|uint64(h.Mode&modeMask))
	t.r.store(off+haUnique, h.Unique)
	t.r.store(off+haOpener, uint64(h.PID)<<32|uint64(h.Opened))
	t.r.store(off+haStart, h.Start)
	t.r.store(off+haKept, seal(off+haKept, 0))
	t.r.store(off+haCommit, t.commit(off))
	return slot, true
}

func (t *Handles) commit(off int) uint64 {
	var w [6]uint64
	for i := range w {
		w[i] = t.r.load(off + haFH + i*word)
	}
	return commit(w[:]...)
}

func (t *Handles) read(slot uint32) (*Handle, bool) {
	off := handleAt(slot)
	if c := t.r.load(off + haCommit); c == 0 || c != t.commit(off) {
		return nil, false
	}
	flags, opener := t.r.load(off+haFlags), t.r.load(off+haOpener)
	kept, _ := unseal(off+haKept, t.r.load(off+haKept))
	return &Handle{
		FH:     t.r.load(off + haFH),
		Node:   t.r.load(off + haNode),
		Flags:  uint32(flags >> 32),
		Mode:   HandleMode(flags) & modeMask,
		Class:  uint8(flags >> 24),
		Unique: t.r.load(off + haUnique),
		PID:    uint32(opener >> 32),
		Opened: uint32(opener),
		Start:  t.r.load(off + haStart),
		Kept:   kept != 0,
	}, true
}

// SetKept records that the keeper has the handle's descriptor. It is set before the descriptor is sent, so that a
// successor looks for it.
func (t *Handles) SetKept(slot uint32) {
	off := handleAt(slot) + haKept
	t.r.store(off, seal(off, 1))
}

// Remove forgets a handle.
func (t *Handles) Remove(slot uint32) {
	t.r.store(handleAt(slot)+haCommit, 0)
	t.slots.put(slot)
}
