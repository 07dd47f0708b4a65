// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"os"
	"testing"

	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
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

// TestReserve: blocks are reserved for a run of data, and not for a comb, which would give half of them back again one by
// one.
func TestReserve(t *testing.T) {
	const minReserve = 8 * mib // twice the shortest run that blocks are reserved for
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	comb, err := os.Create(src + "/comb")
	if err != nil {
		t.Fatal(err)
	}
	defer comb.Close()
	for off := int64(0); off < minReserve; off += 8 * kib {
		if _, err := comb.WriteAt(testimg.Noise(testimg.Random(1), 4*kib), off); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		image   string
		reserve bool
	}{{comb.Name(), false}, {testimg.Dense(t, src+"/dense", minReserve), true}} {
		var f testfault.Faults
		mnt := testfault.Mount(t, dst, &f)
		mustCopy(t, c.image, mnt+"/copy", nil)
		if got := f.Count("fallocate") > 0; got != c.reserve {
			t.Errorf("%s: blocks reserved: %v", c.image, got)
		}
		testimg.Remove(t, dst+"/copy")
	}
}

// TestReserveZeroes: of zeroes that were written few blocks are reserved, for each piece of them costs a call to give back.
func TestReserveZeroes(t *testing.T) {
	const size, most = 256 * mib, 40
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	zeroes, err := os.Create(src + "/zeroes")
	if err != nil {
		t.Fatal(err)
	}
	defer zeroes.Close()
	for off := int64(0); off < size; off += mib {
		if _, err := zeroes.WriteAt(make([]byte, mib), off); err != nil {
			t.Fatal(err)
		}
	}
	var f testfault.Faults
	mnt := testfault.Mount(t, dst, &f)
	mustCopy(t, zeroes.Name(), mnt+"/copy", nil)
	if got := f.Count("fallocate"); got > most {
		t.Errorf("%d calls of fallocate for %d MiB of zeroes", got, size/mib)
	}
	if st := testimg.Stat(t, dst+"/copy"); st.Size != size || st.Blocks > 0 {
		t.Errorf("the copy has %d bytes in %d blocks", st.Size, st.Blocks)
	}
}
