// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"os"
	"testing"

	"imgward/copy/internal/testimg"
	"imgward/copy/move"
)

// TestComb: scattered blocks that are most of a piece are written with what lies between them; a few among holes, or a
// hole among data, are left as they are. Zeroes that were written are as holes.
func TestComb(t *testing.T) {
	for _, c := range []struct {
		name              string
		data, gap, zeroes int64 // repeated
		whole             bool
	}{
		{"half of it data", 4 * kib, 4 * kib, 0, true},
		{"half of it zeroes", 8 * kib, 0, 8 * kib, true},
		{"more gaps than data", 4 * kib, 8 * kib, 0, false},
		{"a few long runs", 192 * kib, 64 * kib, 0, false},
	} {
		src, dst := testimg.Dirs(t)
		f, err := os.Create(src + "/image")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r := testimg.Random(7)
		for off := int64(0); off < 2*mib; off += c.data + c.gap + c.zeroes {
			if _, err := f.WriteAt(append(testimg.Noise(r, c.data), make([]byte, c.zeroes)...), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(2 * mib); err != nil {
			t.Fatal(err)
		}
		var holes int
		mustCopy(t, f.Name(), dst+"/copy", func(o *Options) {
			o.Reflink = Never
			o.Explain = func(s move.Step) {
				if s.Method == move.MethodHole {
					holes++
				}
			}
		})
		testimg.Same(t, f.Name(), dst+"/copy")
		if (holes == 0) != c.whole {
			t.Errorf("%s: %d holes, %d KiB allocated", c.name, holes, testimg.Stat(t, dst+"/copy").Blocks/2)
		}
	}
}
