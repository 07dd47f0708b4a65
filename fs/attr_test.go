// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestAttributesOfWritten: what the kernel is told of a file that is open for writing is not good at all, and for a while
// after that only briefly, so that nothing has to be taken back when it is opened again.
func TestAttributesOfWritten(t *testing.T) {
	w := newWorld(t)
	w.write("f", "x")
	good := func() time.Duration {
		t.Helper()
		var out fuse.AttrOut
		if code := w.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: w.lookup("f")}}, &out); !code.Ok() {
			t.Fatal(code)
		}
		return time.Duration(out.AttrValid)*time.Second + time.Duration(out.AttrValidNsec)
	}
	expect := func(when string, want time.Duration) {
		t.Helper()
		if got := good(); got != want {
			t.Errorf("%s attributes are good for %v, want %v", when, got, want)
		}
	}
	expect("at first", cacheTimeout)
	fh := w.open("f", unix.O_RDWR)
	expect("while it is open for writing", 0)
	w.Release(nil, &fuse.ReleaseIn{Fh: fh})
	expect("right after", briefly)
	n, _ := w.nodes.get(w.lookup("f"))
	n.activity().brief.until.Store(sinceStart())
	expect("a second later", cacheTimeout)
	if n.activity().brief.extend() {
		t.Error("what was told then is not taken back")
	}
}
