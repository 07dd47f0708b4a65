// SPDX-License-Identifier: Apache-2.0

package viewfs

import "imgward/guard"

// nodeIndex finds nodes by inode. It is a hash table with linear probing that holds nothing but the nodes, which have
// their keys: a view may have millions, and a map takes four times as much for each. The zero value is empty.
type nodeIndex struct {
	cells []*node // a power of two; at most three quarters are in use
	used  int
}

// home is where a key's node is, or the first cell to look at. Inode numbers are often in a row, and so are the shards' of
// an index: the multiplication (Fibonacci hashing) scatters them.
func (x *nodeIndex) home(k guard.ID) int {
	h := (k.Ino ^ k.Dev<<32) * 0x9e3779b97f4a7c15
	return int(h>>32) & (len(x.cells) - 1)
}

func (x *nodeIndex) get(k guard.ID) *node {
	if x.used == 0 {
		return nil
	}
	for i := x.home(k); x.cells[i] != nil; i = (i + 1) & (len(x.cells) - 1) {
		if x.cells[i].key == k {
			return x.cells[i]
		}
	}
	return nil
}

// put enters a node, in the place of another one of that inode.
func (x *nodeIndex) put(n *node) {
	if x.used >= len(x.cells)/4*3 {
		old := x.cells
		x.cells, x.used = make([]*node, max(8, 2*len(old))), 0
		for _, o := range old {
			if o != nil {
				x.put(o)
			}
		}
	}
	i := x.home(n.key)
	for ; x.cells[i] != nil; i = (i + 1) & (len(x.cells) - 1) {
		if x.cells[i].key == n.key {
			x.cells[i] = n
			return
		}
	}
	x.cells[i] = n
	x.used++
}

// remove takes a node out, if it is the one of its inode. What stands behind it moves up, so that no gap is in its way.
func (x *nodeIndex) remove(n *node) {
	if x.used == 0 {
		return
	}
	mask := len(x.cells) - 1
	gap := x.home(n.key)
	for ; x.cells[gap] != n; gap = (gap + 1) & mask {
		if x.cells[gap] == nil {
			return
		}
	}
	for i := (gap + 1) & mask; x.cells[i] != nil; i = (i + 1) & mask {
		if home := x.home(x.cells[i].key); (i-home)&mask >= (i-gap)&mask {
			x.cells[gap], gap = x.cells[i], i
		}
	}
	x.cells[gap] = nil
	x.used--
}

// len is the number of nodes.
func (x *nodeIndex) len() int { return x.used }
