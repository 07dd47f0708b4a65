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
