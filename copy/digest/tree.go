// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"slices"
	"sync"
)

// Tree collects the digests of one image, leaves in any order. Its methods may be called by many goroutines; the
// hashing itself is done outside the lock.
type Tree struct {
	alg       Algorithm
	zeroLeaf  Sum
	zeroBlock Sum

	mu     sync.Mutex
	size   int64
	blocks []Sum                  // "" while unknown
	open   map[int64]*[leaves]Sum // blocks under way; at most as many as there are requests in flight
	left   map[int64]int          // leaves that an open block lacks
}

// zeroes is only ever read.
var zeroes [Leaf]byte

// Unknown is the size of a stream before its end.
const Unknown = -1

// New is the tree of an image of size bytes, or of one of Unknown size: then End follows the last leaf.
func New(alg Algorithm, size int64) *Tree {
	t := &Tree{alg: alg, size: size, open: make(map[int64]*[leaves]Sum), left: make(map[int64]int)}
	t.zeroLeaf = alg.Of(zeroes[:])
	t.zeroBlock = Join(alg, slices.Repeat([]Sum{t.zeroLeaf}, leaves))
	t.blocks = make([]Sum, max(0, ceil(size, Block)))
	return t
}

// End says where an image of unknown size ended.
func (t *Tree) End(size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size = size
	for i, b := range t.open {
		t.put(i, Join(t.alg, b[:t.leavesOf(i)]))
	}
}

// Replace puts a block's digest in the place of the one that it had: its data was changed.
func (t *Tree) Replace(i int64, sum Sum) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks[i] = sum
}

// Algorithm is the hash function in use.
func (t *Tree) Algorithm() Algorithm { return t.alg }

// Size is the image's in bytes.
func (t *Tree) Size() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// Data hashes one leaf; off is a multiple of Leaf, and p ends at the next or at the image's end.
func (t *Tree) Data(off int64, p []byte) {
	sum := t.alg.Of(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(off/Leaf, sum)
}

// Hole says that [off, off+n) is zeroes; it begins and ends at leaves' boundaries, or at the image's end.
func (t *Tree) Hole(off, n int64) {
	end := off + n
	if tail := end % Leaf; tail != 0 {
		end -= tail
		t.Data(end, zeroes[:tail])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for off < end {
		if off%Block == 0 && end-off >= Block {
			t.put(off/Block, t.zeroBlock)
			off += Block
			continue
		}
		t.set(off/Leaf, t.zeroLeaf)
		off += Leaf
	}
}

// set takes a leaf's digest, and closes the block that it completes.
func (t *Tree) set(leaf int64, sum Sum) {
	i := leaf / leaves
	b := t.open[i]
	if b == nil {
		b = new([leaves]Sum)
		t.open[i] = b
		t.left[i] = t.leavesOf(i)
	}
	b[leaf%leaves] = sum
	if t.left[i]--; t.left[i] > 0 {
		return
	}
	t.put(i, Join(t.alg, b[:t.leavesOf(i)]))
}

// put takes a whole block's digest.
func (t *Tree) put(i int64, sum Sum) {
	for int64(len(t.blocks)) <= i {
		t.blocks = append(t.blocks, "")
	}
	t.blocks[i] = sum
	delete(t.open, i)
	delete(t.left, i)
}

// leavesOf is the number of leaves in block i. A block of a stream counts as whole until End.
func (t *Tree) leavesOf(i int64) int {
	if t.size == Unknown {
		return leaves
	}
	return int(min(leaves, ceil(t.size-i*Block, Leaf)))
}

// Join is the digest of digests.
func Join(alg Algorithm, sums []Sum) Sum {
	b := make([]byte, 0, len(sums)*alg.Size())
	for _, s := range sums {
		b = append(b, s...)
	}
	return alg.Of(b)
}

// Blocks returns the blocks' digests; "" for those not known.
func (t *Tree) Blocks() []Sum {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.blocks)
}

// Complete reports whether every block is known.
func (t *Tree) Complete() bool { return !slices.Contains(t.Blocks(), "") }

// Root is the image's digest. The tree must be complete.
func (t *Tree) Root() Sum { return Join(t.alg, t.Blocks()) }

func ceil(a, b int64) int64 { return (a + b - 1) / b }
