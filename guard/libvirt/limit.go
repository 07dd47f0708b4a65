// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

// Bounds on a status file. A real one has some 20 KiB; a domain with hundreds of disks and long chains stays below 2 MiB.
const (
	// MaxFile is the largest status file that is read, in bytes.
	MaxFile = 16 << 20
	// maxDepth bounds the nesting of elements. The longest backing chain that libvirt accepts, 200 images
	// (VIR_STORAGE_MAX_CHAIN_DEPTH), takes one level for each. libvirtxml's decoder recurses without a bound of its
	// own, and a Go stack that overflows ends the whole process.
	maxDepth = 300
)

var errTooDeep = errors.New("elements nest deeper than 300 levels")

// shallow passes on the tokens of a decoder until they nest too deep.
type shallow struct {
	raw   *xml.Decoder
	depth int
}

// Token implements xml.TokenReader.
func (s *shallow) Token() (xml.Token, error) {
	t, err := s.raw.RawToken()
	switch t.(type) {
	case xml.StartElement:
		if s.depth++; s.depth > maxDepth {
			return nil, errTooDeep
		}
	case xml.EndElement:
		s.depth--
	}
	return t, err
}

// newDecoder makes a decoder that is safe on hostile input of bounded size.
func newDecoder(text []byte) *xml.Decoder {
	return xml.NewTokenDecoder(&shallow{raw: xml.NewDecoder(bytes.NewReader(withoutCaps(text)))})
}

// withoutCaps cuts the list of QEMU's capabilities out of a status file: it is more than half of one, and nothing in
// it is wanted. If the cut is wrong, because someone wrote the words elsewhere, what is left is not well-formed
// and is refused as a whole.
func withoutCaps(text []byte) []byte {
	open, end := []byte("<qemuCaps>"), []byte("</qemuCaps>")
	before, rest, ok := bytes.Cut(text, open)
	if !ok {
		return text
	}
	_, after, ok := bytes.Cut(rest, end)
	if !ok {
		return text
	}
	return bytes.Join([][]byte{before, after}, nil)
}

// An ordinary user may write anything into his session's directory, and the daemon is root.
const (
	maxSessionFile  = 1 << 20
	maxSessionFiles = 256
)

// maxFile is the largest status file that is read in a directory of this kind, in bytes.
func (d *Dir) maxFile() int64 {
	if d.Session {
		return maxSessionFile
	}
	return MaxFile
}

// maxFiles is how many files are read there; -1: all.
func (d *Dir) maxFiles() int {
	if d.Session {
		return maxSessionFiles
	}
	return -1
}

// readBounded reads all of r, or fails if that is more than most bytes.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("it is larger than %d MiB", most>>20)
	}
	return text, nil
}
