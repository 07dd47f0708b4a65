// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"time"
)

// SaveInit keeps the INIT request that the kernel sent, header included, for the successor: the kernel sends it once.
func (r *Region) SaveInit(req []byte) {
	if len(req) > initBytes {
		req = req[:initBytes] // never seen: fuse_init_in is 104 bytes with its header
	}
	r.storeBytes(hInit, req)
	r.store(hInitLen, uint64(crc32.Checksum(req, castagnoli))<<32|uint64(len(req)))
}

// Init returns the saved INIT request, nil if there is none.
func (r *Region) Init() []byte {
	w := r.load(hInitLen)
	n := int(uint32(w))
	if n == 0 || n > initBytes {
		return nil
	}
	req := append([]byte(nil), r.mem[hInit:hInit+n]...)
	if crc32.Checksum(req, castagnoli) != uint32(w>>32) {
		return nil
	}
	return req
}

// Beat shows that the worker lives.
func (r *Region) Beat() { r.add(hBeats, 1) }

// Beats reads, from the state memory of a worker in another process, a number that grows while it lives.
func Beats(memory *os.File) uint64 {
	var word [word]byte
	if _, err := memory.ReadAt(word[:], hBeats); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(word[:])
}

// Generation counts the workers that have served this view; the first is 1.
func (r *Region) Generation() uint64 { return r.load(hGeneration) }

// NoteLeaving remembers when a worker made room for its successor, for service managers do not tell.
func (r *Region) NoteLeaving(now time.Time) { r.store(hLeft, uint64(now.UnixNano())) }

// Left is when the worker before made room; zero: it did not, it died.
func (r *Region) Left() time.Time {
	if ns := r.load(hLeft); ns != 0 {
		return time.Unix(0, int64(ns))
	}
	return time.Time{}
}

// BeginServing says that a new worker serves now, and how long nobody did; 0 if it is not known when the last one died.
func (r *Region) BeginServing(now, died time.Time) (pause time.Duration) {
	if r.load(hStarted) == 0 {
		r.store(hStarted, uint64(now.UnixNano()))
	}
	if !died.IsZero() {
		pause = now.Sub(died)
	}
	r.store(hLastPause, uint64(pause))
	r.store(hLeft, 0)
	r.store(hServing, uint64(now.UnixNano()))
	r.add(hGeneration, 1)
	return pause
}

// SetDevice remembers the view's st_dev, and Device tells it.
func (r *Region) SetDevice(dev uint64) { r.store(hDevice, dev) }

// Device is the view's st_dev.
func (r *Region) Device() uint64 { return r.load(hDevice) }

// Times are when the view was mounted, when the present worker began to serve, and the last pause between two workers (0:
// not known).
func (r *Region) Times() (mounted, serving time.Time, lastPause time.Duration) {
	return time.Unix(0, int64(r.load(hStarted))), time.Unix(0, int64(r.load(hServing))), time.Duration(r.load(hLastPause))
}

// NotePanic remembers that a worker panicked, and returns when one did before; zero: none did.
func (r *Region) NotePanic(now time.Time) (last time.Time) {
	if ns := r.load(hPanicked); ns != 0 {
		last = time.Unix(0, int64(ns))
	}
	r.store(hPanicked, uint64(now.UnixNano()))
	return last
}

// CountRefusal adds one to the refusals since the mount, and Refusals reads them.
func (r *Region) CountRefusal() { r.add(hRefusals, 1) }

// Refusals since the mount, by all workers.
func (r *Region) Refusals() uint64 { return r.load(hRefusals) }

// NodesHigh is one more than the highest node slot that was ever used.
func (r *Region) NodesHigh() uint64 { return min(r.load(hNodesHigh), maxNodes) }

// RaiseBackingID remembers the highest backing id that the kernel gave out, so that a successor can find ids that were
// registered but never recorded (the kernel hands them out in rising order).
func (r *Region) RaiseBackingID(id int32) {
	for {
		cur := r.load(hMaxBacking)
		if uint64(id) <= cur {
			return
		}
		r.cas(hMaxBacking, cur, uint64(id))
	}
}

// MaxBackingID is the highest id passed to RaiseBackingID.
func (r *Region) MaxBackingID() int32 { return int32(r.load(hMaxBacking)) }
