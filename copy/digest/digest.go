// SPDX-License-Identifier: Apache-2.0

// Package digest hashes images as trees: leaves of 1 MiB, blocks of 64 leaves, one root.
//
// A leaf's digest is the hash of its bytes (the last leaf is as long as what is left); a block's digest is the hash of
// its leaves' digests, one after the other; the image's is the hash of its blocks' digests. So leaves can be hashed in
// any order and in parallel, a bad block can be named and repaired, and a hole costs nothing however long it is: all
// leaves of zeroes are one. The price is that the image's digest is not what b3sum prints for the file.
package digest

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"
)

// The sizes of the tree, in bytes of the image. Manifests name them, but no others are written or read.
const (
	Leaf  = 1 << 20
	Block = 64 << 20

	leaves = Block / Leaf
)

// Algorithm is a hash function.
type Algorithm string

// The algorithms. XXH3 (128 bits) runs at the speed of memory and finds accidents; BLAKE3 (256 bits) is for keeping.
const (
	XXH3   Algorithm = "xxh3-128"
	BLAKE3 Algorithm = "blake3-256"
)

// Sum is a digest's raw bytes; "" is none.
type Sum string

// String is the digest in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString([]byte(s)) }

// Size is the length of the algorithm's digests in bytes; 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case XXH3:
		return 16
	case BLAKE3:
		return 32
	}
	return 0
}

// Of is the digest of p.
func (a Algorithm) Of(p []byte) Sum {
	switch a {
	case XXH3:
		b := xxh3.Hash128(p).Bytes()
		return Sum(b[:])
	case BLAKE3:
		b := blake3.Sum256(p)
		return Sum(b[:])
	}
	panic(fmt.Sprintf("digest: unknown algorithm %q", a)) // a caller's mistake: input is checked by Size
}
