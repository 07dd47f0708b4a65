// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func createRequests(t testing.TB) *Requests {
	t.Helper()
	r, err := CreateRequests()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(r.mem); r.file.Close() })
	return r
}

// successor maps the memory once more.
func successor(t testing.TB, r *Requests) *Requests {
	t.Helper()
	fd, err := unix.FcntlInt(r.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := OpenRequests(os.NewFile(uintptr(fd), "requests"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(next.mem); next.file.Close() })
	return next
}

// read puts a request into a slot as read(2) does.
func read(s Slot, unique uint64, opcode uint32, payload int) Slot {
	b := s.Buffer()
	binary.NativeEndian.PutUint32(b, uint32(HeaderSize+payload))
	binary.NativeEndian.PutUint32(b[opcodeAt:], opcode)
	binary.NativeEndian.PutUint64(b[uniqueAt:], unique)
	for i := range payload {
		b[HeaderSize+i] = byte(unique) + byte(i)
	}
	return s
}

func TestSuccessorFindsRequests(t *testing.T) {
	r := createRequests(t)
	done := read(r.Take(), 2, 1, 10)
	small, large := read(r.Take(), 4, 16, 10), read(r.Take(), 6, 16, MaxPayload)
	small.Mark(Interrupted)
	done.Free()
	next := successor(t, r)
	found := map[uint64]Slot{}
	for _, s := range next.InFlight() {
		found[s.Unique()] = s
	}
	if len(found) != 2 {
		t.Fatalf("found %v, want requests 4 and 6", found)
	}
	if s := found[4]; !bytes.Equal(s.Request()[HeaderSize:], small.Request()[HeaderSize:]) || s.Opcode() != 16 || !s.Marked(Interrupted) || s.Marked(Begun) {
		t.Errorf("request 4 is %v, marks %d", s.Request(), *s.marks())
	}
	if s := found[6]; !bytes.Equal(s.Request(), large.Request()) || len(s.Request()) != HeaderSize+MaxPayload || s.Marked(Interrupted) {
		t.Errorf("request 6 has %d bytes, marks %d", len(s.Request()), *s.marks())
	}
	for range LargeSlots - 1 {
		next.Take() // all but that of request 6 are free: the small one has been parked
	}
	for _, s := range found {
		s.Free()
	}
	if again := successor(t, next).InFlight(); len(again) != 0 {
		t.Errorf("%d requests after the last was answered", len(again))
	}
}

// A slot that was marked and freed has no marks for the next request.
func TestMarksGoWithTheRequest(t *testing.T) {
	r := createRequests(t)
	s := read(r.Take(), 2, 2, 8)
	s.Mark(Begun)
	s.Free()
	if next := r.Take(); next.index != s.index || next.Marked(Begun) {
		t.Errorf("slot %d again, marks %d", next.index, *next.marks())
	}
}

// Requests that wait leave the slots that others are read into free.
func TestParked(t *testing.T) {
	r := createRequests(t)
	var waiting []Slot
	for i := range uint64(3 * LargeSlots) {
		waiting = append(waiting, r.Parked(read(r.Take(), 2*(i+1), 33, 48)))
	}
	if len(r.large) < scarce-1 {
		t.Errorf("%d large slots are free", len(r.large))
	}
	if s, ok := r.Find(2); !ok || s.Unique() != 2 {
		t.Error("a request in a large slot is not found")
	}
	if s, ok := r.Find(6 * LargeSlots); !ok || s.isLarge() || s.Opcode() != 33 {
		t.Error("a parked request is not found")
	}
	if n := len(r.InUse()); n != len(waiting) {
		t.Errorf("%d in use, want %d", n, len(waiting))
	}
	for i, s := range waiting {
		if got := s.Request(); s.Unique() != 2*uint64(i+1) || len(got) != HeaderSize+48 || got[HeaderSize+47] != byte(s.Unique())+47 {
			t.Fatalf("request %d is %v", i, got)
		}
		s.Free()
	}
	if len(r.large) != LargeSlots || len(r.InUse()) != 0 {
		t.Errorf("%d of %d large slots are free", len(r.large), LargeSlots)
	}
}

// A worker that dies while it parks a request leaves it once, and whole.
func TestDeathWhileParking(t *testing.T) {
	r := createRequests(t)
	s := read(r.Take(), 8, 33, 48)
	p := r.park(s)
	// As it was before the large slot was freed:
	read(s, 8, 33, 48)
	left := successor(t, r).InFlight()
	if len(left) != 1 || left[0].isLarge() || !bytes.Equal(left[0].Request(), p.Request()) {
		t.Fatalf("%d requests left", len(left))
	}
	// As it was before the copy was published: only the large one is there.
	left[0].Free()
	read(s, 8, 33, 48)
	if left := successor(t, r).InFlight(); len(left) != 1 || left[0].Unique() != 8 {
		t.Fatalf("%d requests left", len(left))
	}
}

func TestRequestsOfAnotherVersion(t *testing.T) {
	r := createRequests(t)
	r.words.store(rLayout, layout+1)
	if _, err := OpenRequests(r.File()); !errors.Is(err, ErrVersion) {
		t.Errorf("another layout: %v", err)
	}
	if err := r.File().Truncate(memorySize - pageSize); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRequests(r.File()); !errors.Is(err, ErrVersion) {
		t.Errorf("another size: %v", err)
	}
}

// A hostile or cut length stays within the slot.
func TestRequestStaysInItsSlot(t *testing.T) {
	r := createRequests(t)
	s := read(r.Take(), 2, 16, 8)
	for _, n := range []uint32{0, 1, HeaderSize - 1, 1 << 31, 1<<32 - 1} {
		binary.NativeEndian.PutUint32(s.Buffer(), n)
		if got := len(s.Request()); got < HeaderSize || got > len(s.Buffer()) {
			t.Errorf("length %d gives a request of %d bytes", n, got)
		}
	}
}

// TestLargeSlotsArePresent: the kernel must not have to wait for a page while it hands out a request.
func TestLargeSlotsArePresent(t *testing.T) {
	r := createRequests(t)
	err := r.Lock() // also where locking is not allowed, the memory is there
	for range LargeSlots {
		mem := r.Take().mem
		vec := make([]byte, len(mem)/pageSize)
		if _, _, no := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&vec[0]))); no != 0 {
			t.Fatal(no)
		}
		for i, v := range vec {
			if v&1 == 0 {
				t.Fatalf("page %d is not there (mlock: %v)", i, err)
			}
		}
		if uintptr(unsafe.Pointer(&mem[requestAt+writeHeader]))%pageSize != 0 {
			t.Error("the payload of a WRITE is not at a page")
		}
	}
}
