// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Fields and bits of qcow2's tables (docs/interop/qcow2.txt); big-endian.
const (
	offsetMask     = 0x00fffffffffffe00
	copiedBit      = 1 << 63
	compressedBit  = 1 << 62
	zeroBit        = 1 << 0
	maxL1          = 32 << 20 // bytes; QEMU's own bound (QCOW_MAX_L1_SIZE)
	knownBits      = 1<<0 | 1<<2 | 1<<3
	corruptBit     = 1 << 1
	dataFileBit    = 1 << 2
	extendedL2Bit  = 1 << 4
	compressionBit = 1 << 3
)

// qcow2 is the tables of one image.
type qcow2 struct {
	r        io.ReaderAt
	size     int64
	bits     uint
	version  uint32
	external bool // its data is in another file
	l1       []uint64
	l2       []uint64 // the one read last
	l2At     uint64   // where that is; 0: none
}

func openQcow2(r io.ReaderAt) (*qcow2, error) {
	h := make([]byte, 112)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, int64(len(h))), h); err != nil {
		return nil, fmt.Errorf("read its header: %w", err)
	}
	q := &qcow2{
		r: r, version: binary.BigEndian.Uint32(h[4:]), bits: uint(binary.BigEndian.Uint32(h[20:])),
		size: int64(binary.BigEndian.Uint64(h[24:])),
	}
	incompatible := uint64(0)
	if q.version >= 3 {
		incompatible = binary.BigEndian.Uint64(h[72:])
	}
	q.external = incompatible&dataFileBit != 0
	switch {
	case string(h[:4]) != "QFI\xfb" || q.version != 2 && q.version != 3:
		return nil, errors.New("it has no qcow2 header of version 2 or 3")
	case q.bits < 9 || q.bits > 21 || q.size < 0:
		return nil, errors.New("its qcow2 header is broken")
	case binary.BigEndian.Uint32(h[32:]) != 0:
		return nil, fmt.Errorf("it is encrypted: %w", ErrFormat)
	case incompatible&corruptBit != 0:
		return nil, errors.New("it is marked as corrupt: qemu-img check -r all")
	case incompatible&extendedL2Bit != 0:
		return nil, fmt.Errorf("it has subclusters (extended_l2): %w", ErrFormat)
	case incompatible&compressionBit != 0 && h[104] != 0:
		return nil, fmt.Errorf("it is compressed with zstd: %w", ErrFormat)
	case incompatible&^(knownBits) != 0:
		return nil, fmt.Errorf("it has features that imgcp does not know (%#x): %w", incompatible, ErrFormat)
	}
	return q, q.readL1(binary.BigEndian.Uint64(h[40:]), binary.BigEndian.Uint32(h[36:]))
}

func (q *qcow2) readL1(at uint64, entries uint32) error {
	perTable := int64(1) << (2*q.bits - 3) // bytes of the disk for each table of the second level
	needed := (q.size-1)/perTable + 1
	if q.size == 0 {
		needed = 0
	}
	if int64(entries)*8 > maxL1 || int64(entries) < needed {
		return fmt.Errorf("its L1 table of %d entries does not fit a disk of %d bytes", entries, q.size)
	}
	var err error
	q.l1, err = q.table(at, int(needed))
	return err
}

// table reads n entries.
func (q *qcow2) table(at uint64, n int) ([]uint64, error) {
	b := make([]byte, 8*n)
	if _, err := io.ReadFull(io.NewSectionReader(q.r, int64(at&(1<<62-1)), int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("read its table at %d: %w", at, err)
	}
	t := make([]uint64, n)
	for i := range t {
		t[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return t, nil
}

// find is layer.find.
func (q *qcow2) find(s *segment) (bool, error) {
	perTable := int64(1) << (2*q.bits - 3)
	table := q.l1[s.off/perTable] & offsetMask
	if table == 0 {
		s.n = min(s.n, q.size-s.off, perTable-s.off%perTable)
		return false, nil
	}
	if table != q.l2At {
		l2, err := q.table(table, 1<<(q.bits-3))
		if err != nil {
			return false, err
		}
		q.l2, q.l2At = l2, table
	}
	cluster := int64(1) << q.bits
	in := s.off % cluster
	s.n = min(s.n, q.size-s.off, cluster-in)
	entry := q.l2[s.off%perTable/cluster]
	at := entry & offsetMask
	switch {
	case entry&compressedBit != 0:
		s.kind, s.at, s.deep = compressed, in, entry
		return true, nil
	case q.version >= 3 && entry&zeroBit != 0:
		s.kind = zeroes
		return true, nil
	case at == 0 && !(q.external && entry&copiedBit != 0):
		return false, nil
	case at%uint64(cluster) != 0:
		return false, fmt.Errorf("its data at %d is not at a cluster's boundary: qemu-img check", at)
	}
	s.kind, s.at = data, int64(at)+in
	return true, nil
}

// inflate reads a compressed cluster.
func (q *qcow2) inflate(descriptor uint64) ([]byte, error) {
	sizeAt := 62 - (q.bits - 8)
	at := int64(descriptor & (1<<sizeAt - 1))
	sectors := int64(descriptor>>sizeAt)&(1<<(q.bits-8)-1) + 1
	in := io.NewSectionReader(q.r, at, sectors*512-at%512)
	b := make([]byte, 1<<q.bits)
	if _, err := io.ReadFull(flate.NewReader(in), b); err != nil {
		return nil, fmt.Errorf("its compressed cluster at %d: %w", at, err)
	}
	return b, nil
}

// ErrDiffers says that what was written is not what the image holds.
var ErrDiffers = errors.New("what was read back is not what the image holds")
