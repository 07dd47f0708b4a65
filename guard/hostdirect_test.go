// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReopenKeepsTimes: to look into an image does not count as reading it.
func TestReopenKeepsTimes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, []byte("header"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Unix(100, 0)
	if err := os.Chtimes(name, long, time.Unix(200, 0)); err != nil { // read before it was written: the next read counts
		t.Fatal(err)
	}
	f, err := (HostDirect{}).Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 6), 0); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	if got := time.Unix(st.Atim.Unix()); !got.Equal(long) {
		t.Errorf("the time of the last access is %v, want %v", got, long)
	}
}
