// SPDX-License-Identifier: Apache-2.0

package state

import "time"

// Handle is one record of the handle table: a file or directory that the kernel has open.
type Handle struct {
	FH    uint64 // what the kernel calls it
	Node  uint64
	Flags uint32 // open(2) flags, without O_CREAT, O_EXCL and O_TRUNC
	Mode  HandleMode
	// Unique is the request that opened it. If that request is handled again, its answer never arrived, and this
	// handle is the answer.
	Unique uint64
	PID    uint32 // opener, as a thread group id
	Opened uint32 // seconds since 1970
	Start  uint64 // the opener's start time, in clock ticks since boot
	Class  uint8  // the opener's, as the guard saw it then; the numbers are the caller's
	Kept   bool   // its descriptor is with the keeper: it carries locks, or its file has no name
	// Closed is when one of its descriptors was closed last, while there were locks; zero: never.
	Closed time.Time
}

// HandleMode is how a handle's reads and writes travel.
type HandleMode uint32

// The bits of HandleMode.
const (
	ModeDir         HandleMode = 1 << iota // a directory
	ModePassthrough                        // by the kernel, straight to the backing file
	ModeChecked                            // by the daemon, each write judged
	ModeUnaligned                          // by the daemon: O_DIRECT, and perhaps not aligned
	ModeWhileInUse                         // ModeChecked, and the image was in use when it was opened
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
	haKept   = 7 * word // sealed: closed, in ms since 1970, 47 | kept 1
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
	h.FH = uint64(slot+1) | nextUse(t.r.load(off+haFH), 0)<<32
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
	kept := t.kept(slot)
	h := &Handle{
		FH:     t.r.load(off + haFH),
		Node:   t.r.load(off + haNode),
		Flags:  uint32(flags >> 32),
		Mode:   HandleMode(flags) & modeMask,
		Class:  uint8(flags >> 24),
		Unique: t.r.load(off + haUnique),
		PID:    uint32(opener >> 32),
		Opened: uint32(opener),
		Start:  t.r.load(off + haStart),
		Kept:   kept&keptBit != 0,
	}
	if ms := kept >> closedShift; ms != 0 {
		h.Closed = time.UnixMilli(int64(ms))
	}
	return h, true
}

const (
	keptBit     = 1
	closedShift = 1
)

func (t *Handles) kept(slot uint32) uint64 {
	off := handleAt(slot) + haKept
	v, _ := unseal(off, t.r.load(off))
	return v
}

func (t *Handles) setKept(slot uint32, v uint64) {
	off := handleAt(slot) + haKept
	t.r.store(off, seal(off, v))
}

// SetKept records that the keeper has the handle's descriptor. It is set before the descriptor is sent, so that a
// successor looks for it. The caller has no other SetKept or SetClosed of this handle under way.
func (t *Handles) SetKept(slot uint32) { t.setKept(slot, t.kept(slot)|keptBit) }

// SetClosed records Closed, like SetKept.
func (t *Handles) SetClosed(slot uint32, at time.Time) {
	t.setKept(slot, uint64(at.UnixMilli())<<closedShift|t.kept(slot)&keptBit)
}

// Full says whether one more handle cannot be added.
func (t *Handles) Full() bool { return t.slots.used() >= t.slots.max }

// Remove forgets a handle.
func (t *Handles) Remove(slot uint32) {
	t.r.store(handleAt(slot)+haCommit, 0)
	t.slots.put(slot)
}
