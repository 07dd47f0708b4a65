// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgward/guard/role"
)

// The header of a file with a domain's saved state (libvirt's src/qemu/qemu_saveimage.h): magic, then integers of 32 bits in the
// byte order of the host that wrote it, then the domain's XML, padded with zeros. Behind it comes QEMU's migration stream.
const (
	saveMagic   = "LibvirtQemudSave"
	partMagic   = "LibvirtQemudPart" // while it is written; one that stays so cannot be restored
	saveHeader  = 92
	saveVersion = 2

	saveVersionAt, saveLengthAt, saveCookieAt = 16, 20, 32
)

// Errors of ReadSaveImage.
var (
	ErrNoSaveImage = errors.New("it is no saved state of a domain")
	// ErrUnfinished: the state is being written, or its writer died.
	ErrUnfinished = errors.New("it is an unfinished saved state")
)

// ReadSaveImage reads the XML of the domain whose state a file holds.
func ReadSaveImage(r io.ReaderAt) ([]byte, error) {
	h := make([]byte, saveHeader)
	if n, err := r.ReadAt(h, 0); n < len(saveMagic) || n < len(h) && !errors.Is(err, io.EOF) {
		return nil, errors.Join(ErrNoSaveImage, unlessEOF(err))
	}
	switch string(h[:len(saveMagic)]) {
	case partMagic:
		return nil, ErrUnfinished
	case saveMagic:
	default:
		return nil, ErrNoSaveImage
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(h[saveVersionAt:]) > saveVersion {
		order = binary.BigEndian
	}
	if v := order.Uint32(h[saveVersionAt:]); v > saveVersion {
		return nil, fmt.Errorf("the version %d of this saved state is not known", v)
	}
	size := order.Uint32(h[saveLengthAt:])
	if cookie := order.Uint32(h[saveCookieAt:]); cookie != 0 {
		size = min(size, cookie)
	}
	if size > MaxFile {
		return nil, fmt.Errorf("the domain's XML in this saved state is larger than %d MiB", MaxFile>>20)
	}
	text := make([]byte, size)
	if n, err := r.ReadAt(text, saveHeader); n < len(text) {
		return nil, fmt.Errorf("read the domain's XML in a saved state: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return text, nil
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// ParseSaveImage is ReadSaveImage and ParseDefinition: the images that the domain will have open again, and the file itself, at path.
func ParseSaveImage(r io.ReaderAt, path string, volumes Volumes) (*Domain, []string, error) {
	text, err := ReadSaveImage(r)
	if err != nil {
		return nil, nil, err
	}
	return parseSaved(text, path, volumes)
}

func parseSaved(text []byte, path string, volumes Volumes) (*Domain, []string, error) {
	d, notes, err := ParseDefinition(text, volumes)
	if err != nil {
		return nil, nil, err
	}
	d.Driver = "qemu"
	d.Images = append(d.Images, Image{Path: path, Role: role.SavedState, Format: "raw", Writable: true})
	return d, notes, nil
}
