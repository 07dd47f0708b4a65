// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// held is what a client has open all the time.
type held struct {
	locked, removed, nameless *os.File
	listing                   *os.File
}

// hold opens a locked file, one that is removed then, one without a name, and a directory that it has listed half of.
func hold(t *testing.T, v *harness.View) *held {
	t.Helper()
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(filepath.Join(v.Dir, name), os.O_RDWR|flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	h := &held{locked: open("locked", os.O_CREATE), removed: open("removed", os.O_CREATE), nameless: open(".", unix.O_TMPFILE)}
	if err := unix.FcntlFlock(h.locked.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 10}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{h.removed, h.nameless} {
		if _, err := f.WriteAt([]byte("still there"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(h.removed.Name()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(v.Dir, "many")
	harness.Sh(t, `mkdir "$D" && cd "$D" && touch $(seq 1000)`, "D="+dir).OK(t)
	var err error
	if h.listing, err = os.Open(dir); err != nil {
		t.Fatal(err)
	}
	if names, err := h.listing.Readdirnames(100); len(names) != 100 {
		t.Fatal(names, err)
	}
	return h
}

// check finds all of it as it was, and closes it.
func (h *held) check(t *testing.T) {
	t.Helper()
	rival, err := os.OpenFile(h.locked.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rival.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 105, Len: 1}
	if err := unix.FcntlFlock(rival.Fd(), unix.F_OFD_SETLK, &lock); err != unix.EAGAIN {
		t.Errorf("a lock is gone: a rival's is answered %v, want EAGAIN", err)
	}
	for _, f := range []*os.File{h.removed, h.nameless} {
		b := make([]byte, 11)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "still there" {
			t.Errorf("%s holds %q (%v)", f.Name(), b, err)
		}
		if st, err := f.Stat(); err != nil || st.Size() != 11 {
			t.Errorf("stat of %s: %v", f.Name(), err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
	}
	if names, err := h.listing.Readdirnames(-1); len(names) != 900 {
		t.Errorf("the rest of a directory has %d names, want 900 (%v)", len(names), err)
	}
	for _, f := range []*os.File{h.locked, h.removed, h.nameless, h.listing} {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
