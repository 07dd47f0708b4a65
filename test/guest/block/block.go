// SPDX-License-Identifier: Apache-2.0

// Package block defines the blocks that a test guest writes: each one says which disk, place and write it belongs to,
// and cannot be taken for another. The guest writes them, and both the guest and the host check them.
package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Size is the size of a block in bytes, one page and one sector of a 4K-native disk.
const Size = 4096

const (
	magic     = 0x4b4c423144525749 // "IWRD1BLK", little endian
	headerLen = 32
	crcAt     = Size - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors that Parse tells apart.
var (
	// ErrZero means that the block holds zeroes only: never written, or discarded.
	ErrZero = errors.New("all zeroes")
	// ErrTorn means a block of ours whose checksum is wrong: parts of two writes, or of somebody else's.
	ErrTorn = errors.New("torn or damaged")
	// ErrForeign means that the block was not written by a guest of ours.
	ErrForeign = errors.New("foreign contents")
)

// Fill makes b, of Size bytes, the block of write seq to place lba (in blocks) of the disk.
func Fill(b []byte, disk string, lba, seq uint64) {
	binary.LittleEndian.PutUint64(b[0:], magic)
	binary.LittleEndian.PutUint64(b[8:], diskID(disk))
	binary.LittleEndian.PutUint64(b[16:], lba)
	binary.LittleEndian.PutUint64(b[24:], seq)
	noise(b[headerLen:crcAt], lba^seq<<32)
	binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
}

// Parse returns the number of the write that left b at place lba of the disk. Its errors wrap ErrZero, ErrTorn or
// ErrForeign.
func Parse(b []byte, disk string, lba uint64) (seq uint64, err error) {
	if binary.LittleEndian.Uint64(b) != magic {
		if zero(b) {
			return 0, ErrZero
		}
		return 0, ErrForeign
	}
	if crc32.Checksum(b[:crcAt], castagnoli) != binary.LittleEndian.Uint32(b[crcAt:]) {
		return 0, ErrTorn
	}
	if id := binary.LittleEndian.Uint64(b[8:]); id != diskID(disk) {
		return 0, fmt.Errorf("block of another disk (%#x): %w", id, ErrForeign)
	}
	if at := binary.LittleEndian.Uint64(b[16:]); at != lba {
		return 0, fmt.Errorf("block of place %d: %w", at, ErrForeign)
	}
	return binary.LittleEndian.Uint64(b[24:]), nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// noise fills b with bytes that neither compress nor look like zeroes (xorshift64), so that no layer can store the
// block as a hole or a reference.
func noise(b []byte, seed uint64) {
	x := seed*0x9e3779b97f4a7c15 | 1
	for len(b) >= 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b, x)
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(x>>(8*i)) | 1
	}
}

// diskID is FNV-1a of the disk's name.
func diskID(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return h
}
