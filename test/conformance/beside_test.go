// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRemovedBeside: a file that was removed beside the view a moment ago is made anew by whoever opens its name with
// O_CREAT, and is gone for everybody else. The kernel remembers the name for a second, and would write to a file without
// one.
func TestRemovedBeside(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		if p.backing == "" {
			return
		}
		dir := freshDir(t, p)
		shown := filepath.Join(dir, "image")
		beneath := filepath.Join(p.backing, "image")
		if rel, err := filepath.Rel(p.dir, dir); err == nil {
			beneath = filepath.Join(p.backing, rel, "image")
		}
		for _, make := range []int{os.O_CREATE | os.O_TRUNC, os.O_CREATE} {
			if err := os.WriteFile(shown, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(shown); err != nil {
				t.Fatal(err)
			}
			released(t, beneath) // one that is still open may be opened again without its name
			if err := os.Remove(beneath); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(shown, os.O_WRONLY|make, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("new"); err != nil {
				t.Error(err)
			}
			f.Close()
			released(t, beneath)
			if got, err := os.ReadFile(beneath); err != nil || string(got) != "new" {
				t.Errorf("%q, %v was written", got, err)
			}
			if err := os.Remove(beneath); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(shown); !os.IsNotExist(err) {
				t.Errorf("reading a file that was removed: %v", err)
			}
		}
	})
}

// released waits until nobody has a file open for writing: the kernel tells a FUSE server of a close after close(2) has returned,
// and until then the file is there for others as well.
func released(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if err == nil {
			return
		}
		if err != unix.EAGAIN || time.Now().After(end) {
			t.Fatalf("%s is not released: %v", file, err)
		}
	}
}
