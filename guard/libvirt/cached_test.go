// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// quiet waits until nobody needs to read the directories again.
func (r *run) quiet() {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(granule) {
		r.expect()
		all := true
		for _, d := range r.index.dirs {
			all = all && d.witness.changedNothing(&look{})
		}
		if all {
			return
		}
		if time.Now().After(end) {
			r.Fatal("the directory is read again and again")
		}
	}
}

// Nothing that happens to a directory of status files, or above it, escapes the look at what the kernel remembers.
func TestWitness(t *testing.T) {
	if !isFresh(os.TempDir()) {
		t.Log("the directory of tests is on a file system that is not looked at in this way: on /dev/shm instead")
		t.Setenv("TMPDIR", "/dev/shm")
	}
	r := newRun(t, false)
	outer := filepath.Dir(r.dir)
	elsewhere := filepath.Join(filepath.Dir(outer), "elsewhere")
	r.quiet() // two levels are missing
	r.mkdir()
	r.write("a.xml", statusText("a", "/1"))
	r.expect("a /1")
	r.quiet()
	r.write("a.xml", statusText("a", "/2"))
	r.expect("a /2")
	r.quiet()
	r.must(os.Rename(outer, elsewhere))
	r.expect("-a")
	r.quiet()
	r.must(os.Symlink(elsewhere, outer))
	r.expect("a /2")
	r.quiet()
	r.must(os.Rename(filepath.Join(elsewhere, "qemu"), filepath.Join(elsewhere, "other")))
	r.expect("-a")
	r.quiet()
	r.must(os.Remove(outer))
	r.must(os.Symlink(filepath.Join(elsewhere, "yet"), outer))
	r.expect() // leads nowhere yet
	time.Sleep(2 * granule)
	r.expect()
	r.must(os.MkdirAll(filepath.Join(elsewhere, "yet"), 0o755))
	r.must(os.Rename(filepath.Join(elsewhere, "other"), filepath.Join(elsewhere, "yet", "qemu")))
	r.expect("a /2")
	r.quiet()
	r.must(os.WriteFile(filepath.Join(r.dir, "a.xml"), []byte(statusText("a", "/3")), 0o600)) // in place
	r.index.MarkStale(filepath.Join(r.dir, "a.xml"))
	r.expect("a /3")
}
