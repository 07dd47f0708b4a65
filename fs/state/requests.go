// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests is memory that requests are read into from the kernel, one slot for each that is under way. A worker that
// dies leaves its unanswered requests in it, whole, for its successor; nobody has to ask the kernel to send them again,
// which it can do only since Linux 6.9.
//
// There are two kinds of slots. read(2) goes into a large one, which has room for the largest request. Such memory must
// be present all the time (see Lock), so there are few. A request that may take its time and is not large is parked in a
// small slot, so that requests that wait (for a lock, for a file system that does not answer) do not keep others from
// being read.
type Requests struct {
	mem   []byte
	words *Region // the same memory
	file  *os.File

	mu    sync.Mutex
	large []uint32 // free ones; the last is used first, for its memory is the warmest
	// present are the large slots whose memory is there; see Lock.
	present [LargeSlots]bool
	small   slots
	freed   sync.Cond // a large slot came free; with mu
}

const (
	pageSize = 4096

	// LargeSlots is how many requests can be read, or be too large to be parked, at the same time.
	LargeSlots = 64
	// MaxPayload is the most that a WRITE can carry. Requests of other kinds are smaller.
	MaxPayload = 256 << 10
	// maxSmall is how many requests can wait beside those.
	maxSmall = 1 << 16

	// writeHeader is what stands before the payload of a WRITE (struct fuse_in_header, struct fuse_write_in).
	writeHeader = 40 + 40
	// requestAt is where a request begins in a large slot: the payload of a WRITE is at a page, as O_DIRECT wants it.
	requestAt  = pageSize - writeHeader
	largeSize  = pageSize + MaxPayload
	smallSize  = pageSize
	parkedAt   = 64 // where a request begins in a small slot
	largeAt    = pageSize
	smallAt    = largeAt + LargeSlots*largeSize
	memorySize = smallAt + maxSmall*smallSize
)

// Offsets of the words of the first page, and of those of a slot, before its request.
const (
	rMagic     = 0 * word
	rLayout    = 1 * word
	rSmallHigh = 2 * word

	sMarks = 0 * word

	requestsMagic = 0x7165722d67776d69 // "imgw-req"
	// layout changes with any of the sizes above.
	layout = 1
)

// The header of a request, struct fuse_in_header.
const (
	lenAt    = 0
	opcodeAt = 4
	uniqueAt = 8
	// HeaderSize is its size.
	HeaderSize = 40
)

// CreateRequests makes the memory, in a memfd.
func CreateRequests() (*Requests, error) {
	fd, err := unix.MemfdCreate("imgward-requests", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create the memory of requests: %w", err)
	}
	f := os.NewFile(uintptr(fd), "imgward-requests")
	if err := f.Truncate(memorySize); err != nil {
		f.Close()
		return nil, fmt.Errorf("size the memory of requests: %w", err)
	}
	r, err := mapRequests(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.words.store(rLayout, layout)
	r.words.store(rMagic, requestsMagic)
	r.findFree()
	return r, nil
}

// OpenRequests maps the memory that a predecessor left. ErrVersion means that another binary has to read it.
func OpenRequests(f *os.File) (*Requests, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat the memory of requests: %w", err)
	}
	if st.Size() != memorySize {
		return nil, fmt.Errorf("%w: the memory of requests has %d bytes", ErrVersion, st.Size())
	}
	r, err := mapRequests(f)
	if err != nil {
		return nil, err
	}
	if r.words.load(rMagic) != requestsMagic || r.words.load(rLayout) != layout {
		return nil, fmt.Errorf("%w: the memory of requests", ErrVersion)
	}
	r.findFree()
	return r, nil
}

func mapRequests(f *os.File) (*Requests, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map the memory of requests: %w", err)
	}
	r := &Requests{mem: mem, words: &Region{mem: mem}, file: f}
	r.freed.L = &r.mu
	r.small = slots{r: r.words, highAt: rSmallHigh, max: maxSmall}
	return r, nil
}

// findFree looks which slots are free.
func (r *Requests) findFree() {
	for i := range uint32(LargeSlots) {
		if slot := r.largeSlot(i); slot.Unique() == 0 {
			r.large = append(r.large, i)
		}
	}
	r.small.scan(func(i uint32) bool { return r.smallSlot(i).Unique() != 0 })
}

// File is the memfd, for the keeper.
func (r *Requests) File() *os.File { return r.file }

// Lock has memory of large slots present that is used first, and keeps it so; Take does it for others when they are needed
// for the first time, so that a view with little under way stays small. The kernel ends a request with EIO if its reader is
// killed while it copies the request into a page that is not there: it would have to wait for the page, and a process that is
// being killed does not wait (fuse_dev_do_read, Linux 6.18; seen as I/O errors in a guest, in some of 600 kills). The
// error says that the memory is only touched, for want of CAP_IPC_LOCK or LimitMEMLOCK=: it may be swapped out then.
func (r *Requests) Lock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, i := range r.large[max(0, len(r.large)-lockedAtOnce):] {
		r.present[i] = true
		err = errors.Join(err, r.largeSlot(i).lock())
	}
	return err
}

// lockedAtOnce is how many slots a view is likely to use that has nothing much to do.
const lockedAtOnce = 4

func (s Slot) lock() error {
	for at := 0; at < len(s.mem); at += pageSize {
		atomic.AddUint64((*uint64)(unsafe.Pointer(&s.mem[at])), 0) // a write, so that the page is there to be written
	}
	return unix.Mlock(s.mem)
}

// Slot is room for one request.
type Slot struct {
	r     *Requests
	mem   []byte // from its first word on
	begin int    // of the request
	index uint32
}

func (r *Requests) largeSlot(i uint32) Slot {
	at := largeAt + int(i)*largeSize
	return Slot{r: r, mem: r.mem[at : at+largeSize : at+largeSize], begin: requestAt, index: i}
}

func (r *Requests) smallSlot(i uint32) Slot {
	at := smallAt + int(i)*smallSize
	return Slot{r: r, mem: r.mem[at : at+smallSize : at+smallSize], begin: parkedAt, index: i}
}

// Take returns a free large slot, and waits for one.
func (r *Requests) Take() Slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.large) == 0 {
		r.freed.Wait()
	}
	n := len(r.large) - 1
	i := r.large[n]
	r.large = r.large[:n]
	s := r.largeSlot(i)
	if !r.present[i] {
		r.present[i] = true
		_ = s.lock()
	}
	atomic.StoreUint64(s.marks(), 0)
	return s
}

// Room says whether Take would not wait.
func (r *Requests) Room() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.large) > 0
}

// scarce is how many free large slots are few.
const scarce = LargeSlots / 4

// Parked moves a request to a small slot if large ones are scarce and it fits; and returns where it is now.
func (r *Requests) Parked(s Slot) Slot {
	r.mu.Lock()
	few := len(r.large) < scarce
	r.mu.Unlock()
	if !few {
		return s
	}
	return r.park(s)
}

// park writes the copy's unique last: from then on both are whole, until the first is freed. See InFlight.
func (r *Requests) park(s Slot) Slot {
	request := s.Request()
	if !s.isLarge() || len(request) > smallSize-parkedAt {
		return s
	}
	i, ok := r.small.take()
	if !ok {
		return s
	}
	p := r.smallSlot(i)
	copy(p.mem[parkedAt:], request[:uniqueAt])
	copy(p.mem[parkedAt+uniqueAt+word:], request[uniqueAt+word:])
	atomic.StoreUint64(p.marks(), atomic.LoadUint64(s.marks()))
	atomic.StoreUint64(p.unique(), s.Unique())
	s.Free()
	return p
}

// InFlight lists the slots with requests that a predecessor has left, those that can be parked in small ones.
func (r *Requests) InFlight() []Slot {
	var left []Slot
	parked := map[uint64]bool{}
	for i := range min(uint32(r.words.load(rSmallHigh)), maxSmall) {
		if s := r.smallSlot(i); s.Unique() != 0 {
			left = append(left, s)
			parked[s.Unique()] = true
		}
	}
	for i := range uint32(LargeSlots) {
		s := r.largeSlot(i)
		switch u := s.Unique(); {
		case u == 0:
		case parked[u]:
			s.Free()
		default:
			left = append(left, r.park(s))
		}
	}
	return left
}

func (s Slot) isLarge() bool { return s.begin == requestAt }

// Buffer is what a request is read into.
func (s Slot) Buffer() []byte { return s.mem[s.begin:] }

func (s Slot) unique() *uint64 { return (*uint64)(unsafe.Pointer(&s.mem[s.begin+uniqueAt])) }

func (s Slot) marks() *uint64 { return (*uint64)(unsafe.Pointer(&s.mem[sMarks])) }

// Unique is the number of the request in the slot, 0 if there is none.
func (s Slot) Unique() uint64 { return atomic.LoadUint64(s.unique()) }

// Opcode is the request's.
func (s Slot) Opcode() uint32 { return binary.NativeEndian.Uint32(s.mem[s.begin+opcodeAt:]) }

// Request is the request with its header.
func (s Slot) Request() []byte {
	b := s.Buffer()
	n := int(binary.NativeEndian.Uint32(b[lenAt:]))
	return b[:max(HeaderSize, min(n, len(b)))]
}

// Marks are notes on a request that outlive the worker.
type Marks uint64

const (
	// Begun says that a request which has no answer is being handled.
	Begun Marks = 1 << iota
	// Interrupted says that the kernel has asked for an early end.
	Interrupted
	// Moving says that it is a read or a write that is under way in this worker, and comes to an end by itself.
	Moving
)

// Mark notes something on the request.
func (s Slot) Mark(m Marks) { atomic.OrUint64(s.marks(), uint64(m)) }

// Unmark takes back a note.
func (s Slot) Unmark(m Marks) { atomic.AndUint64(s.marks(), ^uint64(m)) }

// Marked says whether something was noted.
func (s Slot) Marked(m Marks) bool { return Marks(atomic.LoadUint64(s.marks()))&m != 0 }

// Free is called when the request has been answered, or needs no answer.
func (s Slot) Free() {
	atomic.StoreUint64(s.unique(), 0) // and not the marks: they hold until there is no request
	if !s.isLarge() {
		s.r.small.put(s.index)
		return
	}
	s.r.mu.Lock()
	s.r.large = append(s.r.large, s.index)
	s.r.mu.Unlock()
	s.r.freed.Signal()
}

// Find returns the slot of a request that is under way.
func (r *Requests) Find(unique uint64) (Slot, bool) {
	for i := range uint32(LargeSlots) {
		if s := r.largeSlot(i); s.Unique() == unique {
			return s, true
		}
	}
	for i := range min(uint32(r.words.load(rSmallHigh)), maxSmall) {
		if s := r.smallSlot(i); s.Unique() == unique {
			return s, true
		}
	}
	return Slot{}, false
}

// InUse lists the slots with requests that are under way.
func (r *Requests) InUse() []Slot {
	var used []Slot
	for i := range uint32(LargeSlots) {
		if s := r.largeSlot(i); s.Unique() != 0 {
			used = append(used, s)
		}
	}
	for i := range min(uint32(r.words.load(rSmallHigh)), maxSmall) {
		if s := r.smallSlot(i); s.Unique() != 0 {
			used = append(used, s)
		}
	}
	return used
}
