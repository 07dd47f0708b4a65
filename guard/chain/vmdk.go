// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"imgward/guard/role"
)

// Fields of the header of a sparse VMDK extent (block/vmdk.c, VMDK4Header); little-endian, in sectors.
const (
	vmdkMagic        = "KDMV"
	vmdkHeaderLength = 79
	vmdkDescAt       = 28
	vmdkDescSizeAt   = 36
	sector           = 512
	vmdkSignature    = "# Disk DescriptorFile"

	// maxDescriptor is QEMU's own bound on a descriptor, in bytes (vmdk_read_desc).
	maxDescriptor = 1 << 20
)

// vmdk reads the descriptor, which is a text file of its own or embedded in the one extent.
func vmdk(r io.ReaderAt) ([]ref, error) {
	magic, err := readAt(r, 0, 4)
	if err != nil {
		return nil, err
	}
	at, size := int64(0), int64(maxDescriptor)
	if string(magic) == vmdkMagic {
		h, err := readAt(r, 0, vmdkHeaderLength)
		if err != nil {
			return nil, err
		}
		first, count := binary.LittleEndian.Uint64(h[vmdkDescAt:]), binary.LittleEndian.Uint64(h[vmdkDescSizeAt:])
		if first == 0 || count == 0 {
			return nil, nil // an extent of an image whose descriptor is elsewhere
		}
		if first > 1<<40 || count > maxDescriptor/sector {
			return nil, fmt.Errorf("its descriptor of %d sectors at sector %d cannot be", count, first)
		}
		at, size = int64(first)*sector, int64(count)*sector
	}
	text, err := io.ReadAll(io.NewSectionReader(r, at, size))
	if err != nil {
		return nil, fmt.Errorf("read its descriptor: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	if !bytes.HasPrefix(text, []byte(vmdkSignature)) {
		return nil, errors.New("it has no VMDK descriptor")
	}
	return vmdkDescriptor(string(text)), nil
}

// vmdkDescriptor finds the parent and the extents.
func vmdkDescriptor(text string) []ref {
	var refs []ref
	for line := range strings.Lines(text) {
		if hint, ok := strings.CutPrefix(line, `parentFileNameHint="`); ok {
			if name, _, ok := strings.Cut(hint, `"`); ok && name != "" {
				refs = append(refs, ref{name: name, format: "vmdk", role: role.Backing})
			}
			continue
		}
		if e, ok := vmdkExtent(line); ok {
			refs = append(refs, e)
		}
	}
	return refs
}

// vmdkExtent reads a line like `RW 4192256 SPARSE "disk-s001.vmdk"`. A sparse extent has no parent of its own.
func vmdkExtent(line string) (ref, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return ref{}, false
	}
	switch fields[0] {
	case "RW", "RDONLY", "NOACCESS":
	default:
		return ref{}, false
	}
	_, rest, ok := strings.Cut(line, `"`)
	if !ok {
		return ref{}, false
	}
	name, _, ok := strings.Cut(rest, `"`)
	return ref{name: name, format: "raw", role: role.DataFile}, ok && name != ""
}
