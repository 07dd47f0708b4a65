// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgward/guard/role"
)

// Fields of the header of qcow2 (docs/interop/qcow2.txt) and of the older qcow; big-endian.
const (
	qcowMagic = "QFI\xfb"
	// A qcow header ends at 48, a qcow2 one at 72 (version 2), or where it says itself (version 3).
	qcow1Length, qcow2Length, qcow3Length = 48, 72, 104

	qcowVersionAt       = 4
	qcowBackingOffsetAt = 8
	qcowBackingSizeAt   = 16
	qcowClusterBitsAt   = 20
	qcowIncompatibleAt  = 72
	qcowHeaderLengthAt  = 100

	// maxBackingName is QEMU's own bound, in bytes.
	maxBackingName = 1023

	incompatibleDataFile = 1 << 2

	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionDataFile      = 0x44415441
	extensionFeatureNames  = 0x6803f857
)

// qcow reads a qcow or qcow2 header.
func qcow(r io.ReaderAt) ([]ref, error) {
	h, err := readAt(r, 0, qcow1Length)
	if err != nil {
		return nil, err
	}
	if string(h[:4]) != qcowMagic {
		return nil, errors.New("it has no qcow2 header")
	}
	version := binary.BigEndian.Uint32(h[qcowVersionAt:])
	if version == 1 {
		return backingOf(r, h, "")
	}
	if version > 3 {
		return nil, fmt.Errorf("its qcow2 version %d is not known", version)
	}
	if h, err = readAt(r, 0, qcow2Length); err != nil {
		return nil, err
	}
	x, err := qcowExtensions(r, h, version)
	if err != nil {
		return nil, err
	}
	var refs []ref
	if x.data != "" {
		refs = append(refs, ref{name: x.data, format: "raw", role: role.DataFile})
	}
	backing, err := backingOf(r, h, x.format)
	return append(refs, backing...), err
}

// backingOf reads the backing file's name, which both headers have at the same place.
func backingOf(r io.ReaderAt, h []byte, format string) ([]ref, error) {
	at := binary.BigEndian.Uint64(h[qcowBackingOffsetAt:])
	size := binary.BigEndian.Uint32(h[qcowBackingSizeAt:])
	switch {
	case at == 0 || size == 0:
		return nil, nil
	case size > maxBackingName || at > 1<<40:
		return nil, fmt.Errorf("its backing file name of %d bytes at %d cannot be", size, at)
	}
	name, err := readAt(r, int64(at), int(size))
	if err != nil {
		return nil, err
	}
	return []ref{{name: cString(name), format: format, role: role.Backing}}, nil
}

// cString ends a name where QEMU's strings end.
func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

type extensions struct{ format, data string }

// qcowExtensions reads the two header extensions that are about other files.
func qcowExtensions(r io.ReaderAt, h []byte, version uint32) (x extensions, err error) {
	incompatible := uint64(0)
	if version == 3 {
		if h, err = readAt(r, 0, qcow3Length); err != nil {
			return x, err
		}
		incompatible = binary.BigEndian.Uint64(h[qcowIncompatibleAt:])
	}
	err = eachExtension(r, h, version, func(kind uint32, at, size int64) error {
		if kind != extensionBackingFormat && (kind != extensionDataFile || incompatible&incompatibleDataFile == 0) {
			return nil
		}
		text, err := readAt(r, at, int(size))
		if err != nil {
			return err
		}
		if kind == extensionDataFile {
			x.data = cString(text)
		} else {
			x.format = cString(text)
		}
		return nil
	})
	return x, err
}

// eachExtension walks over the header extensions: they end with an empty one, at the backing file's name, or with the first
// cluster (qcow2_read_extensions). h is the header, as long as its version says.
func eachExtension(r io.ReaderAt, h []byte, version uint32, found func(kind uint32, at, size int64) error) error {
	at := int64(qcow2Length)
	if version == 3 {
		at = int64(binary.BigEndian.Uint32(h[qcowHeaderLengthAt:]))
	}
	bits := binary.BigEndian.Uint32(h[qcowClusterBitsAt:])
	if bits < 9 || bits > 21 || at < qcow2Length {
		return fmt.Errorf("its qcow2 header is broken (cluster bits %d, length %d)", bits, at)
	}
	end := int64(1) << bits
	if name := binary.BigEndian.Uint64(h[qcowBackingOffsetAt:]); name != 0 {
		end = min(end, int64(min(name, 1<<21)))
	}
	for at+8 <= end {
		head, err := readAt(r, at, 8)
		if err != nil {
			return err
		}
		kind, size := binary.BigEndian.Uint32(head), int64(binary.BigEndian.Uint32(head[4:]))
		at += 8
		if kind == extensionEnd {
			return nil
		}
		if size > end-at {
			return fmt.Errorf("its header extension %#x of %d bytes is too long", kind, size)
		}
		if err := found(kind, at, size); err != nil {
			return err
		}
		at += (size + 7) &^ 7
	}
	return nil
}
