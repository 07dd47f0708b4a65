// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// image is bytes with holes known to be zeroes.
func image(size int) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for off := 0; off+4096 < size; off += Leaf / 3 {
		b[off] = byte(1 + r.IntN(255))
	}
	return b
}

func leavesOf(b []byte) (offs []int64) {
	for off := int64(0); off < int64(len(b)); off += Leaf {
		offs = append(offs, off)
	}
	return offs
}

func leaf(b []byte, off int64) []byte { return b[off:min(off+Leaf, int64(len(b)))] }

func TestTreeDoesNotDependOnOrder(t *testing.T) {
	b := image(Block + 3*Leaf + 12345)
	for _, alg := range []Algorithm{XXH3, BLAKE3} {
		forward, shuffled := New(alg, int64(len(b))), New(alg, int64(len(b)))
		offs := leavesOf(b)
		for _, off := range offs {
			forward.Data(off, leaf(b, off))
		}
		rand.New(rand.NewPCG(3, 4)).Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
		for _, off := range offs {
			if shuffled.Complete() {
				t.Fatal("complete before the last leaf")
			}
			shuffled.Data(off, leaf(b, off))
		}
		if !slices.Equal(forward.Blocks(), shuffled.Blocks()) || forward.Root() != shuffled.Root() {
			t.Errorf("%s: the order of leaves changes the digest", alg)
		}
	}
}

func TestHoleIsZeroes(t *testing.T) {
	const size = 2*Block + 5*Leaf + 777
	data, holes := New(BLAKE3, size), New(BLAKE3, size)
	for off := int64(0); off < size; off += Leaf {
		data.Data(off, make([]byte, min(Leaf, size-off)))
	}
	holes.Hole(0, 3*Leaf)
	holes.Hole(3*Leaf, Block)
	holes.Hole(Block+3*Leaf, size-Block-3*Leaf)
	if !slices.Equal(data.Blocks(), holes.Blocks()) {
		t.Error("a hole and written zeroes have different digests")
	}
}

func TestEveryByteCounts(t *testing.T) {
	const size = Block + Leaf
	b := image(size)
	root := func() Sum {
		tree := New(XXH3, size)
		for _, off := range leavesOf(b) {
			tree.Data(off, leaf(b, off))
		}
		return tree.Root()
	}
	before := root()
	for _, at := range []int{0, Leaf - 1, Leaf, Block - 1, Block, size - 1} {
		b[at] ^= 0x80
		if root() == before {
			t.Errorf("byte %d changed, and the digest did not", at)
		}
		b[at] ^= 0x80
	}
}

func TestStreamEndsLikeAFile(t *testing.T) {
	for _, size := range []int{0, 1, Leaf, Leaf + 1, Block, Block + 1, Block + Leaf} {
		b := image(size)
		file, stream := New(XXH3, int64(size)), New(XXH3, Unknown)
		for _, off := range leavesOf(b) {
			file.Data(off, leaf(b, off))
			stream.Data(off, leaf(b, off))
		}
		stream.End(int64(size))
		if !stream.Complete() || !slices.Equal(file.Blocks(), stream.Blocks()) {
			t.Errorf("%d bytes: a stream has %d blocks, a file %d, or they differ", size, len(stream.Blocks()), len(file.Blocks()))
		}
	}
}
