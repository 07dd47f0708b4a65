// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// TestHandleGoesWhileJudged: what was found while a handle went is not the last word.
func TestHandleGoesWhileJudged(t *testing.T) {
	l := newLive(t)
	l.write(t, "image")
	held, err := os.OpenFile(l.path("image"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	l.guard.answer(nil, func(*guard.Request) guard.Verdict {
		if asked.Add(1) > 1 {
			return guard.Verdict{Allowed: true}
		}
		held.Close()
		for len(l.FS.handles.all()) > 0 { // RELEASE comes after close(2)
			time.Sleep(time.Millisecond)
		}
		return guard.Verdict{Errno: syscall.EBUSY}
	})
	inTime(t, "truncate", func() error { return unix.Truncate(l.path("image"), 0) })
	if n := asked.Load(); n != 2 {
		t.Errorf("the guard was asked %d times", n)
	}
}
