// SPDX-License-Identifier: Apache-2.0

package extent

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const kib = 1 << 10

// file has data in the given ranges and holes elsewhere.
func file(t *testing.T, size int64, data ...[2]int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, d := range data {
		b := make([]byte, d[1])
		for i := range b {
			b[i] = 1
		}
		if _, err := f.WriteAt(b, d[0]); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func scan(t *testing.T, f *os.File, off, end int64) (all []Extent) {
	t.Helper()
	for s := NewScanner(f, off, end); ; {
		e, ok, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

func TestScan(t *testing.T) {
	f := file(t, 1024*kib, [2]int64{0, 64 * kib}, [2]int64{256 * kib, 4 * kib}, [2]int64{512 * kib, 128 * kib})
	for _, c := range []struct {
		off, end int64
		want     []Extent
	}{
		{0, 1024 * kib, []Extent{
			{0, 64 * kib, false, false}, {64 * kib, 192 * kib, true, false}, {256 * kib, 4 * kib, false, false}, {260 * kib, 252 * kib, true, false},
			{512 * kib, 128 * kib, false, false}, {640 * kib, 384 * kib, true, false},
		}},
		{32 * kib, 600 * kib, []Extent{
			{32 * kib, 32 * kib, false, false}, {64 * kib, 192 * kib, true, false}, {256 * kib, 4 * kib, false, false}, {260 * kib, 252 * kib, true, false},
			{512 * kib, 88 * kib, false, false},
		}},
		{700 * kib, 1024 * kib, []Extent{{700 * kib, 324 * kib, true, false}}},
		{7, 7, nil},
	} {
		if got := scan(t, f, c.off, c.end); !slices.Equal(got, c.want) {
			t.Errorf("[%d, %d): %v, want %v", c.off, c.end, got, c.want)
		}
	}
}

func TestSmallGapsAreReadOver(t *testing.T) {
	f := file(t, 1024*kib, [2]int64{0, 8 * kib}, [2]int64{12 * kib, 4 * kib}, [2]int64{512 * kib, 4 * kib})
	want := []Extent{{0, 16 * kib, false, false}, {16 * kib, 496 * kib, true, false}, {512 * kib, 4 * kib, false, false}, {516 * kib, 508 * kib, true, false}}
	if got := scan(t, f, 0, 1024*kib); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNoHolesKnown(t *testing.T) {
	f, err := os.Open("/dev/zero") // SEEK_DATA is not for character devices
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := scan(t, f, 0, 1<<20), []Extent{{0, 1 << 20, false, false}}; !slices.Equal(got, want) {
		t.Errorf("%v, want one run of data", got)
	}
}

// TestNothingIsMissed: whatever the map, extents follow one another without gap or overlap, and every byte of data is in
// an extent of data.
func TestNothingIsMissed(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		const size = 4 << 20
		var data [][2]int64
		for off := int64(0); off < size; {
			n := int64(1+r.IntN(40)) * 4 * kib
			if r.IntN(2) == 0 {
				data = append(data, [2]int64{off, min(n, size-off)})
			}
			off += n
		}
		got := scan(t, file(t, size, data...), 0, size)
		at := int64(0)
		for _, e := range got {
			if e.Off != at || e.Len <= 0 {
				t.Fatalf("extent %+v does not follow byte %d", e, at)
			}
			at = e.End()
			for _, d := range data {
				if e.Hole && d[0] < e.End() && d[0]+d[1] > e.Off {
					t.Fatalf("data %v lies in hole %+v", d, e)
				}
			}
		}
		if at != size {
			t.Fatalf("the extents end at %d", at)
		}
	}
}

// TestCombEnds: a window of small holes that the end of the image cuts off is data up to that end. Asking for the hole
// after the end is ENXIO.
func TestCombEnds(t *testing.T) {
	for _, size := range []int64{window, window + 512*kib, window + 512*kib + 512} {
		var comb [][2]int64
		for off := int64(0); off < size-8*kib; off += 8 * kib {
			comb = append(comb, [2]int64{off, 4 * kib})
		}
		f := file(t, size, comb...)
		if got, want := scan(t, f, 0, size), []Extent{{0, size, false, true}}; !slices.Equal(got, want) {
			t.Errorf("%d bytes: %v, want %v", size, got, want)
		}
	}
}
