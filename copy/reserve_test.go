// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"os"
	"testing"

	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
)

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
