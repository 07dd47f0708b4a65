package guard

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestInTime: a look that does not come back is not waited for, and neither are those that queue up behind it.
func TestInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, release := make(looks, 2), make(chan struct{})
		stuck := func() bool { <-release; return true }
		for range 3 {
			if _, ok := inTime(context.Background(), l, stuck); ok {
				t.Error("a look that did not come back was answered")
			}
		}
		if len(l) != 2 {
			t.Errorf("%d looks are under way, want 2", len(l))
		}
		close(release)
		if found, ok := inTime(context.Background(), l, func() int { return 7 }); !ok || found != 7 {
			t.Errorf("found %d, %v; want 7", found, ok)
		}
	})
}
