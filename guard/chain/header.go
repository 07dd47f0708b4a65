// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Header is what a qcow2 image of version 2 or 3 has in its first cluster: the one place where it names other files. Nothing
// else may be there (docs/interop/qcow2.txt), so it can be written anew.
type Header struct {
	Backing  string // the backing file's name as it is written; "" for none
	Format   string // declared for the backing file; "" for not declared
	DataFile string // the external data file's name; "" for none

	fixed      []byte // up to where the extensions begin
	extensions []extension
	used       int64 // bytes from the first one on that are in use
	room       int64 // the first cluster
}

type extension struct {
	kind uint32
	data []byte
}

// ErrNoRoom says that the names do not fit into the first cluster, or one is longer than QEMU takes.
var ErrNoRoom = errors.New("the name does not fit into the image's header")

// ReadHeader reads the header of a qcow2 image.
func ReadHeader(r io.ReaderAt) (*Header, error) {
	start, err := readAt(r, 0, qcow2Length)
	if err != nil {
		return nil, err
	}
	version := binary.BigEndian.Uint32(start[qcowVersionAt:])
	if string(start[:4]) != qcowMagic || version != 2 && version != 3 {
		return nil, errors.New("it has no qcow2 header of version 2 or 3")
	}
	h := &Header{fixed: start, room: 1 << (binary.BigEndian.Uint32(start[qcowClusterBitsAt:]) & 31)}
	if version == 3 {
		if err := h.readFixed(r); err != nil {
			return nil, err
		}
	}
	h.used = int64(len(h.fixed))
	err = eachExtension(r, h.fixed, version, func(kind uint32, at, size int64) error {
		data, err := readAt(r, at, int(size))
		if err != nil {
			return err
		}
		h.used = at + (size+7)&^7
		h.extensions = append(h.extensions, extension{kind, data})
		switch {
		case kind == extensionBackingFormat:
			h.Format = cString(data)
		case kind == extensionDataFile && h.external():
			h.DataFile = cString(data)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, h.readBacking(r)
}

// readFixed reads as much as a version 3 header says that it has.
func (h *Header) readFixed(r io.ReaderAt) error {
	start, err := readAt(r, 0, qcow3Length)
	if err != nil {
		return err
	}
	length := int64(binary.BigEndian.Uint32(start[qcowHeaderLengthAt:]))
	if length < qcow3Length || length > h.room {
		return fmt.Errorf("its qcow2 header is broken (length %d)", length)
	}
	h.fixed, err = readAt(r, 0, int(length))
	return err
}

func (h *Header) readBacking(r io.ReaderAt) error {
	refs, err := backingOf(r, h.fixed, "")
	if err != nil || len(refs) == 0 {
		return err
	}
	at, size := int64(binary.BigEndian.Uint64(h.fixed[qcowBackingOffsetAt:])), int64(binary.BigEndian.Uint32(h.fixed[qcowBackingSizeAt:]))
	if at < int64(len(h.fixed)) || at+size > h.room {
		return fmt.Errorf("its backing file name of %d bytes at %d is not in its first cluster", size, at)
	}
	h.Backing, h.used = refs[0].name, max(h.used, at+size)
	return nil
}

// external reports whether the image keeps its data in another file.
func (h *Header) external() bool {
	return len(h.fixed) >= qcow3Length && binary.BigEndian.Uint64(h.fixed[qcowIncompatibleAt:])&incompatibleDataFile != 0
}

// NeedsUnnamedData reports whether its data is in a file that it does not name: whoever opens it must know.
func (h *Header) NeedsUnnamedData() bool { return h.external() && h.DataFile == "" }

// Encode is the header with the names that h has now, to be written over the old one, from the image's first byte on. The error
// may be ErrNoRoom.
func (h *Header) Encode() ([]byte, error) {
	b, err := h.encode()
	if errors.Is(err, ErrNoRoom) { // then as QEMU does: the names of features are for messages only
		short := *h
		short.extensions = slices.DeleteFunc(slices.Clone(h.extensions), func(x extension) bool { return x.kind == extensionFeatureNames })
		return short.encode()
	}
	return b, err
}

func (h *Header) encode() ([]byte, error) {
	b := bytes.NewBuffer(bytes.Clone(h.fixed))
	declared := h.Format == ""
	for _, x := range h.extensions {
		declared = declared || x.kind == extensionBackingFormat
		switch x.kind {
		case extensionBackingFormat:
			x.data = []byte(h.Format)
		case extensionDataFile:
			if h.external() {
				x.data = []byte(h.DataFile)
			}
		}
		x.write(b)
	}
	if !declared {
		extension{extensionBackingFormat, []byte(h.Format)}.write(b)
	}
	extension{kind: extensionEnd}.write(b)
	at := 0
	if h.Backing != "" {
		at = b.Len()
	}
	binary.BigEndian.PutUint64(b.Bytes()[qcowBackingOffsetAt:], uint64(at))
	binary.BigEndian.PutUint32(b.Bytes()[qcowBackingSizeAt:], uint32(len(h.Backing)))
	b.WriteString(h.Backing)
	if int64(b.Len()) > h.room || len(h.Backing) > maxBackingName || len(h.DataFile) > maxBackingName {
		return nil, ErrNoRoom
	}
	if n := h.used - int64(b.Len()); n > 0 { // nothing of a longer name stays
		b.Write(make([]byte, n))
	}
	return b.Bytes(), nil
}

// write appends the extension, padded to a multiple of 8 bytes.
func (x extension) write(b *bytes.Buffer) {
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], x.kind)
	binary.BigEndian.PutUint32(head[4:], uint32(len(x.data)))
	b.Write(head[:])
	b.Write(x.data)
	b.Write(make([]byte, -len(x.data)&7))
}
