// SPDX-License-Identifier: Apache-2.0

package backing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgward/guard/chain"
)

// probe knows more formats than chain.Probe: those that QEMU takes an image for, too, and that name no files which it opens.
func probe(r io.ReaderAt) (string, error) {
	head := make([]byte, vdiTypeAt+4)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("vhdxfile")):
		return "vhdx", nil
	case bytes.HasPrefix(head, []byte("conectix")):
		return "vpc", nil
	case bytes.HasPrefix(head, []byte("WithoutFreeSpace")), bytes.HasPrefix(head, []byte("WithouFreSpacExt")):
		return "parallels", nil
	case len(head) == cap(head) && binary.LittleEndian.Uint32(head[vdiMagicAt:]) == vdiMagic:
		return "vdi", nil
	}
	return chain.Probe(r)
}

// Fields of the formats that have differences; the numbers of VDI and VHDX are little-endian, of VHD big-endian.
const (
	vdiMagicAt    = 0x40 // block/vdi.c, VdiHeader
	vdiMagic      = 0xbeda107f
	vdiTypeAt     = 0x4c
	vdiDifference = 4

	vhdTypeAt     = 60 // block/vpc.c, VHDFooter
	vhdDifference = 4

	vhdxRegionsAt   = 192 << 10 // block/vhdx.h
	vhdxTable       = 64 << 10
	vhdxRegionHead  = 16
	vhdxItemHead    = 32
	vhdxEntry       = 32
	vhdxHasParent   = 2
	vhdxEntryOffset = 16
)

var (
	vhdxMetadata   = []byte("\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e")
	vhdxParameters = []byte("\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b")
)

// difference reports whether an image in one of these formats is the difference of another one. QEMU opens none of these, and
// where their parents are is not looked for.
func difference(r io.ReaderAt, format string) (bool, error) {
	var b [4]byte
	switch format {
	case "vdi":
		_, err := r.ReadAt(b[:], vdiTypeAt)
		return binary.LittleEndian.Uint32(b[:]) == vdiDifference, err
	case "vpc":
		if _, err := r.ReadAt(b[:], 0); err != nil || string(b[:]) != "cone" {
			return false, err // of a fixed size: what would say it is at the end
		}
		_, err := r.ReadAt(b[:], vhdTypeAt)
		return binary.BigEndian.Uint32(b[:]) == vhdDifference, err
	case "vhdx":
		region, err := vhdxItem(r, vhdxRegionsAt, vhdxRegionHead, vhdxMetadata)
		if err != nil {
			return false, err
		}
		item, err := vhdxItem(r, region, vhdxItemHead, vhdxParameters)
		if err != nil {
			return false, err
		}
		_, err = r.ReadAt(b[:], region+item+4)
		return binary.LittleEndian.Uint32(b[:])&vhdxHasParent != 0, err
	}
	return false, nil
}

// vhdxItem finds what a table of a VHDX image says about the place of a GUID.
func vhdxItem(r io.ReaderAt, at, head int64, guid []byte) (int64, error) {
	table := make([]byte, vhdxTable)
	if _, err := r.ReadAt(table, at); err != nil {
		return 0, fmt.Errorf("read its tables: %w", err)
	}
	for e := table[head:]; len(e) >= vhdxEntry; e = e[vhdxEntry:] {
		if !bytes.HasPrefix(e, guid) {
			continue
		}
		if head == vhdxItemHead {
			return int64(binary.LittleEndian.Uint32(e[vhdxEntryOffset:])), nil
		}
		return int64(binary.LittleEndian.Uint64(e[vhdxEntryOffset:]) & (1<<62 - 1)), nil
	}
	return 0, errors.New("its tables are not those of a VHDX image")
}
