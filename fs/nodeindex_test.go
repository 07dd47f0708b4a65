// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"math/rand/v2"
	"testing"

	"imgward/guard"
)

// An index does what a map does, whatever comes and goes, and whatever shares a cell.
func TestNodeIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var x nodeIndex
	want := map[guard.ID]*node{}
	for range 200_000 {
		k := guard.ID{Dev: rnd.Uint64N(2), Ino: rnd.Uint64N(300) * shardCount}
		switch n := (&node{key: k}); rnd.IntN(4) {
		case 0:
			x.put(n)
			want[k] = n
		case 1:
			x.remove(n) // not the one that is there
		case 2:
			if old := want[k]; old != nil {
				x.remove(old)
				delete(want, k)
			}
		default:
			if x.get(k) != want[k] {
				t.Fatalf("%v: got %p, want %p", k, x.get(k), want[k])
			}
		}
		if x.len() != len(want) {
			t.Fatalf("%d nodes, want %d", x.len(), len(want))
		}
	}
	for k, n := range want {
		if x.get(k) != n {
			t.Fatalf("%v is lost", k)
		}
	}
}
