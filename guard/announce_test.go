// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"strings"
	"testing"
	"time"
)

// What happens to domains is in the event stream: started, a disk more, a disk less, stopped; and a take-over.
func TestDomainEvents(t *testing.T) {
	h := newHost(t)
	first, second := h.image("a.img"), h.image("b.img")
	g := h.guard()
	h.must(g.domains.locked(background, func() {}))
	vmm := h.run("vmm")
	for _, images := range [][]string{{first}, {first, second}, {first}} {
		h.domain("vm", vmm.PID, images...)
		h.must(g.domains.locked(background, func() {}))
	}
	g.TakenOver(3, 20*time.Millisecond)
	var got []string
	for _, e := range g.Events().Recent() {
		if e.Type == EventTakeover && (e.Generation != 3 || e.Pause != 0.02) {
			t.Errorf("take-over: %+v", e)
		}
		if e.Type == EventDomain {
			got = append(got, e.Change+" "+e.Reason)
		}
	}
	want := []string{"started ", "changed .*b.img added", "changed .*b.img removed"}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i, w := range want {
		begin, end, _ := strings.Cut(w, ".*")
		if !strings.HasPrefix(got[i], begin) || !strings.HasSuffix(got[i], end) {
			t.Errorf("%q, want %q", got[i], w)
		}
	}
}
