package imgcopy

import (
	"os"
	"testing"

	"imgward/copy/internal/testvol"
)

// TestReserve: blocks are reserved for a run of data, and not for a comb, which would give half of them back again one by
// one.
func TestReserve(t *testing.T) {
	testvol.Root(t)
	src, dst := dirs(t)
	comb, err := os.Create(src + "/comb")
	if err != nil {
		t.Fatal(err)
	}
	defer comb.Close()
	for off := int64(0); off < 2*minReserve; off += 8 * kib {
		if _, err := comb.WriteAt(noise(random(1), 4*kib), off); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		image   string
		reserve bool
	}{{comb.Name(), false}, {dense(t, src+"/dense", 2*minReserve), true}} {
		var f faults
		mnt := mountFaulty(t, dst, &f)
		mustCopy(t, c.image, mnt+"/copy", nil)
		if got := f.count("fallocate") > 0; got != c.reserve {
			t.Errorf("%s: blocks reserved: %v", c.image, got)
		}
		remove(t, dst+"/copy")
	}
}
