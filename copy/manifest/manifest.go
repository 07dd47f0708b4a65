// SPDX-License-Identifier: Apache-2.0

// Package manifest reads and writes the hashes of an image as they are kept with it: JSON lines, one object each.
//
//	{"type":"manifest","version":1,"image":"vm1.img","size":4294967296,"algorithm":"blake3-256","leaf":1048576,"block":67108864}
//	{"type":"blocks","first":0,"count":60,"sum":"…"}     count neighbouring blocks have the same digest
//	{"type":"blocks","first":60,"count":4,"sum":"…"}
//	{"type":"root","sum":"…"}                            the image's digest; its presence shows that nothing was cut off
//
// Package digest says how leaves, blocks and root are hashed. Unknown fields and types are skipped.
package manifest

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"imgward/copy/digest"
)

// Manifest is the hashes of one image.
type Manifest struct {
	Image     string // its name when the manifest was written, for people
	Size      int64
	Algorithm digest.Algorithm
	Blocks    []digest.Sum
	Root      digest.Sum
}

// New is the manifest of a complete tree.
func New(image string, t *digest.Tree) Manifest {
	return Manifest{Image: image, Size: t.Size(), Algorithm: t.Algorithm(), Blocks: t.Blocks(), Root: t.Root()}
}

const version = 1

// Magic is how every manifest begins.
const Magic = `{"type":"manifest",`

// record is any line, as it is read.
type record struct {
	Type      string           `json:"type"`
	Version   int              `json:"version"`
	Image     string           `json:"image"`
	Size      int64            `json:"size"`
	Algorithm digest.Algorithm `json:"algorithm"`
	Leaf      int64            `json:"leaf"`
	Block     int64            `json:"block"`
	First     int64            `json:"first"`
	Count     int64            `json:"count"`
	Sum       string           `json:"sum"`
}

// The lines, as they are written.
type (
	head struct {
		Type      string           `json:"type"`
		Version   int              `json:"version"`
		Image     string           `json:"image"`
		Size      int64            `json:"size"`
		Algorithm digest.Algorithm `json:"algorithm"`
		Leaf      int64            `json:"leaf"`
		Block     int64            `json:"block"`
	}
	blocks struct {
		Type  string `json:"type"`
		First int    `json:"first"`
		Count int    `json:"count"`
		Sum   string `json:"sum"`
	}
	root struct {
		Type string `json:"type"`
		Sum  string `json:"sum"`
	}
)

// Write writes m.
func (m Manifest) Write(w io.Writer) error {
	if m.Size > maxImage {
		return fmt.Errorf("manifest: no image of more than %d bytes can be described", int64(maxImage))
	}
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	err := enc.Encode(head{"manifest", version, m.Image, m.Size, m.Algorithm, digest.Leaf, digest.Block})
	for i := 0; i < len(m.Blocks) && err == nil; {
		n := 1
		for i+n < len(m.Blocks) && m.Blocks[i+n] == m.Blocks[i] {
			n++
		}
		err = enc.Encode(blocks{"blocks", i, n, m.Blocks[i].String()})
		i += n
	}
	if err != nil {
		return err
	}
	return errors.Join(enc.Encode(root{"root", m.Root.String()}), b.Flush())
}

// maxImage, 256 TiB, bounds what a forged size can make us allocate.
const maxImage = 1 << 48

// Parse reads a manifest and checks that its blocks are all there and that its root is theirs.
//
// sized is asked about the image's size before anything is made for its blocks; nil: any size will do.
func Parse(r io.Reader, sized func(int64) error) (Manifest, error) {
	s := bufio.NewScanner(r)
	var m Manifest
	for s.Scan() {
		var l record
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return Manifest{}, fmt.Errorf("not a manifest of imgcp: %w", err)
		}
		if m.Algorithm == "" && l.Type != "manifest" {
			return Manifest{}, errors.New("not a manifest of imgcp: it does not begin as one")
		}
		err := m.add(l)
		if err == nil && sized != nil && l.Type == "manifest" {
			err = sized(m.Size)
		}
		if err != nil {
			return Manifest{}, err
		}
	}
	if err := s.Err(); err != nil {
		return Manifest{}, err
	}
	return m, m.whole()
}

func (m *Manifest) add(l record) error {
	switch l.Type {
	case "manifest":
		return m.head(l)
	case "blocks":
		sum, err := m.sum(l.Sum)
		if err != nil {
			return err
		}
		want := (m.Size + digest.Block - 1) / digest.Block
		have := int64(len(m.Blocks))
		if l.First != have || l.Count < 1 || l.Count > want-have {
			return fmt.Errorf("manifest: blocks %d to %d cannot follow block %d of %d", l.First, l.First+l.Count-1, have-1, want)
		}
		for range l.Count {
			m.Blocks = append(m.Blocks, sum)
		}
	case "root":
		var err error
		m.Root, err = m.sum(l.Sum)
		return err
	}
	return nil
}

func (m *Manifest) head(l record) error {
	switch {
	case m.Algorithm != "":
		return errors.New("manifest: two of them in one file")
	case l.Version != version:
		return fmt.Errorf("manifest: version %d is not known to this imgcp", l.Version)
	case l.Algorithm.Size() == 0:
		return fmt.Errorf("manifest: algorithm %q is not known to this imgcp", l.Algorithm)
	case l.Leaf != digest.Leaf || l.Block != digest.Block:
		return fmt.Errorf("manifest: leaves of %d and blocks of %d bytes are not known to this imgcp", l.Leaf, l.Block)
	case l.Size < 0 || l.Size > maxImage:
		return fmt.Errorf("manifest: an image of %d bytes is not possible", l.Size)
	}
	m.Image, m.Size, m.Algorithm = l.Image, l.Size, l.Algorithm
	return nil
}

func (m *Manifest) sum(s string) (digest.Sum, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != m.Algorithm.Size() {
		return "", fmt.Errorf("manifest: %q is no digest of %s", s, m.Algorithm)
	}
	return digest.Sum(b), nil
}

func (m *Manifest) whole() error {
	switch {
	case m.Algorithm == "":
		return errors.New("not a manifest of imgcp: it is empty")
	case m.Root == "":
		return errors.New("manifest: its end is missing")
	case digest.Join(m.Algorithm, m.Blocks) != m.Root || (m.Size+digest.Block-1)/digest.Block != int64(len(m.Blocks)):
		return errors.New("manifest: damaged: its root is not that of its blocks")
	}
	return nil
}
