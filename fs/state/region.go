// SPDX-License-Identifier: Apache-2.0

// Package state is what a worker leaves to its successor: the node table, the handle table, the INIT that the kernel
// sent, and the intents of operations that must not be done twice.
//
// It lives in a memfd that the keeper holds, mapped shared, so an update is a few stores and no system call, and what
// was stored survives the process that stored it. A worker can be killed between any two stores; therefore:
//
//   - A record is published by one store, of its commit word, after everything that it covers. A record without a
//     valid commit word does not exist.
//   - What changes while a record lives (a lookup count, a backing id) is one word that carries its own check.
//
// Every store goes through Region.store, in 64-bit words, so that a test can look at the memory after each of them.
package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Version is the layout that this binary writes and reads.
const Version = 1

const (
	magic = 0x31445257474d4921 // "!IMGWRD1" in memory

	word = 8

	// Capacities. The file is sparse: only what is used takes memory.
	maxNodes   = 4 << 20
	maxNames   = 256 << 10
	maxHandles = 1 << 20
	maxLocks   = 256 << 10
	maxIntents = 16 << 10
	initBytes  = 512

	nodeSize   = 16 * word
	nameSize   = 40 * word
	handleSize = 8 * word
	lockSize   = 8 * word
	intentSize = 16 * word

	headerSize = 4096
	nodesAt    = headerSize
	namesAt    = nodesAt + maxNodes*nodeSize
	handlesAt  = namesAt + maxNames*nameSize
	locksAt    = handlesAt + maxHandles*handleSize
	intentsAt  = locksAt + maxLocks*lockSize
	totalSize  = intentsAt + maxIntents*intentSize
)

// Offsets of the header's words.
const (
	hMagic      = 0 * word
	hVersion    = 1 * word
	hSize       = 2 * word
	hCheck      = 3 * word // crc of the three above; written last
	hGeneration = 4 * word
	hNodesHigh  = 5 * word
	hNamesHigh  = 6 * word
	hHandlesHi  = 7 * word
	hMaxBacking = 8 * word
	hLocksHigh  = 14 * word
	hStarted    = 9 * word
	hServing    = 10 * word
	hLastPause  = 11 * word
	hRefusals   = 12 * word
	hDevice     = 13 * word
	hPanicked   = 15 * word
	hBeats      = 16 * word
	hLeft       = 17 * word
	hFirstUse   = 18 * word
	hInitLen    = 64 * word // crc<<32 | length; written after the bytes
	hInit       = 65 * word
)

// Errors of Open.
var (
	ErrVersion = errors.New("state was written by another version of imgward")
	ErrCorrupt = errors.New("state memory is not a valid imgward state")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Region is the mapped memory.
type Region struct {
	mem  []byte
	file *os.File
	// stored is called after each store, in tests only.
	stored func()
}

// Create makes a new, empty state in a memfd.
func Create() (*Region, error) {
	fd, err := unix.MemfdCreate("imgward-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create state memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "imgward-state")
	if err := f.Truncate(totalSize); err != nil {
		f.Close()
		return nil, fmt.Errorf("size state memory: %w", err)
	}
	r, err := mapFile(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.format()
	return r, nil
}

func (r *Region) format() {
	r.store(hMagic, magic)
	r.store(hVersion, Version)
	r.store(hSize, totalSize)
	r.store(hFirstUse, uint64(rand.Uint32()))
	r.store(hCheck, r.headerCheck())
}

// Open maps a state that a predecessor left. It changes nothing in it. ErrVersion means that another binary has to
// read it; ErrCorrupt that none can.
func Open(f *os.File) (*Region, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat state memory: %w", err)
	}
	if st.Size() < headerSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, st.Size())
	}
	var head [headerSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read state header: %w", err)
	}
	h := &Region{mem: head[:]}
	switch {
	case h.load(hMagic) != magic:
		return nil, fmt.Errorf("%w: wrong magic", ErrCorrupt)
	case h.load(hVersion) != Version:
		return nil, fmt.Errorf("%w (layout %d; this binary knows %d)", ErrVersion, h.load(hVersion), Version)
	case h.load(hCheck) != h.headerCheck() || st.Size() != totalSize || h.load(hSize) != totalSize:
		return nil, fmt.Errorf("%w: header check failed", ErrCorrupt)
	}
	return mapFile(f)
}

func mapFile(f *os.File) (*Region, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, totalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map state memory: %w", err)
	}
	return &Region{mem: mem, file: f}, nil
}

// File is the memfd, for the keeper.
func (r *Region) File() *os.File { return r.file }

// untouched says that nothing was ever stored between two offsets, a page and more apart: there is no memory then.
func (r *Region) untouched(from, to int64) bool {
	if r.file == nil {
		return false
	}
	at, err := unix.Seek(int(r.file.Fd()), from, unix.SEEK_DATA)
	return err == unix.ENXIO || err == nil && at >= to
}

// Close unmaps the memory. The state stays with whoever else holds the file.
func (r *Region) Close() error {
	if r.file == nil {
		return nil
	}
	if err := unix.Munmap(r.mem); err != nil {
		return err
	}
	return r.file.Close()
}

func (r *Region) headerCheck() uint64 {
	return uint64(crc32.Checksum(r.mem[hMagic:hCheck], castagnoli)) | 1<<32
}

func (r *Region) at(off int) *uint64 { return (*uint64)(unsafe.Pointer(&r.mem[off])) }

func (r *Region) load(off int) uint64 { return atomic.LoadUint64(r.at(off)) }

func (r *Region) store(off int, v uint64) {
	atomic.StoreUint64(r.at(off), v)
	if r.stored != nil {
		r.stored()
	}
}

func (r *Region) cas(off int, old, v uint64) bool {
	return atomic.CompareAndSwapUint64(r.at(off), old, v)
}

func (r *Region) add(off int, d uint64) uint64 { return atomic.AddUint64(r.at(off), d) }

// storeBytes writes b in whole words from off; the last word is padded with zeroes.
func (r *Region) storeBytes(off int, b []byte) {
	for len(b) >= word {
		r.store(off, binary.NativeEndian.Uint64(b))
		b, off = b[word:], off+word
	}
	if len(b) > 0 {
		var last [word]byte
		copy(last[:], b)
		r.store(off, binary.NativeEndian.Uint64(last[:]))
	}
}

// commit is the word that publishes a record: a check over the given words, and a bit that makes it non-zero.
func commit(words ...uint64) uint64 {
	var buf [64 * word]byte
	for i, w := range words {
		binary.NativeEndian.PutUint64(buf[i*word:], w)
	}
	return uint64(crc32.Checksum(buf[:len(words)*word], castagnoli)) | 1<<32
}

// A sealed word holds 48 bits of value and a 16-bit check that depends on where it stands.
const sealedBits = 48

func seal(off int, v uint64) uint64 {
	v &= 1<<sealedBits - 1
	return v | sealCheck(off, v)<<sealedBits
}

func unseal(off int, w uint64) (v uint64, ok bool) {
	v = w & (1<<sealedBits - 1)
	return v, w>>sealedBits == sealCheck(off, v)
}

func sealCheck(off int, v uint64) uint64 {
	x := (v ^ uint64(off)*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	return (x ^ x>>32) >> 13 & 0xffff
}
