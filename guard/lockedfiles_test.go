// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is behind an image that another host has locked is in use, and both are listed.
func TestBehindLocks(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.config.remote = func(int) bool { return true }
	base, over, other := h.image("base.img"), h.image("over.qcow2"), h.image("other.img")
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, over).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.lock(over)
	g := h.guard()
	await(t, "the search", func() bool { return h.used(g, base) })
	v := g.Check(background, h.request(OpUnlink, base, nil))
	want := "it is the backing of " + over + ", which QEMU on another host, or in a container, has open (its locks are held)"
	if v.Allowed || v.Reason != want {
		t.Errorf("the backing file: %+v\nwant %s", v, want)
	}
	v = g.Check(background, h.request(OpTruncate, over, nil))
	if v.Allowed || !strings.HasPrefix(v.Reason, "QEMU on another host, or in a container, has it open") {
		t.Errorf("the image itself: %+v", v)
	}
	if h.used(g, other) {
		t.Error("an image that nobody has locked")
	}
	all := g.InUse(background)
	if len(all[h.id(base)]) != 1 || len(all[h.id(over)]) != 1 || len(all[h.id(other)]) != 0 {
		t.Errorf("in use are %+v", all)
	}
	// qemu-img commit has both open.
	f, err := os.OpenFile(over, os.O_RDWR, 0)
	h.must(err)
	defer f.Close()
	if v := g.Check(background, h.request(OpOpenWrite, base, h.run("outsider", f))); !v.Allowed {
		t.Errorf("who has the overlay open itself: %s", v.Reason)
	}
}

// When the locks are gone, so is the use: the search is only a hint.
func TestLocksAreAskedAnew(t *testing.T) {
	h := newHost(t)
	h.config.remote = func(int) bool { return true }
	img := h.image("vm.img")
	f := h.open(img, os.O_RDWR)
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: 101, Len: 1}
	h.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l))
	g := h.guard()
	await(t, "the search", func() bool { return len(g.InUse(background)[h.id(img)]) == 1 })
	h.must(f.Close())
	if len(g.InUse(background)[h.id(img)]) != 0 {
		t.Error("locks that were given back count")
	}
}
