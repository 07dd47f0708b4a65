// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgward/guard/role"
)

// Fields of the header of QED (docs/interop/qed_spec.txt); little-endian.
const (
	qedMagic         = "QED\x00"
	qedLength        = 64
	qedFeaturesAt    = 16
	qedBackingAt     = 56
	qedBackingSizeAt = 60

	qedHasBacking    = 1 << 0
	qedBackingIsRaw  = 1 << 2 // BACKING_FORMAT_NO_PROBE
	maxQEDBackingPos = 1 << 30
)

func qed(r io.ReaderAt) ([]ref, error) {
	h, err := readAt(r, 0, qedLength)
	if err != nil {
		return nil, err
	}
	if string(h[:4]) != qedMagic {
		return nil, errors.New("it has no QED header")
	}
	features := binary.LittleEndian.Uint64(h[qedFeaturesAt:])
	if features&qedHasBacking == 0 {
		return nil, nil
	}
	at, size := binary.LittleEndian.Uint32(h[qedBackingAt:]), binary.LittleEndian.Uint32(h[qedBackingSizeAt:])
	if size > maxBackingName || at > maxQEDBackingPos {
		return nil, fmt.Errorf("its backing file name of %d bytes at %d cannot be", size, at)
	}
	name, err := readAt(r, int64(at), int(size))
	if err != nil {
		return nil, err
	}
	b := ref{name: cString(name), role: role.Backing}
	if features&qedBackingIsRaw != 0 {
		b.format = "raw"
	}
	return []ref{b}, nil
}
