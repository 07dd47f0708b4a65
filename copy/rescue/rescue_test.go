// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMap(t *testing.T) {
	var m Map
	m.MarkBad(8192, 4096)
	m.MarkBad(4096, 4096)  // a neighbour
	m.MarkBad(6144, 4096)  // both of them again
	m.MarkBad(65536, 4096) // apart
	m.MarkGood(5120, 1024)
	want := []Range{{4096, 1024}, {6144, 6144}, {65536, 4096}}
	if got := m.Bad(); !slices.Equal(got, want) {
		t.Errorf("bad ranges %v, want %v", got, want)
	}
	if got := m.Missing(); got != 1024+6144+4096 {
		t.Errorf("%d bytes missing", got)
	}
}

// TestDdrescueReadsIt asks ddrescue's own tools about the map.
func TestDdrescueReadsIt(t *testing.T) {
	log, err := exec.LookPath("ddrescuelog")
	if err != nil {
		t.Fatal("ddrescuelog (Debian: gddrescue) is needed:", err)
	}
	var m Map
	m.MarkBad(4096, 4096)
	m.MarkBad(1<<20, 512)
	var b bytes.Buffer
	if err := m.Write(&b, 2<<20); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(log, "--list-blocks=-", "--block-size=512", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.Fields(string(out)), strings.Fields("8 9 10 11 12 13 14 15 2048"); !slices.Equal(got, want) {
		t.Errorf("ddrescuelog sees bad sectors %v, want %v", got, want)
	}
}
