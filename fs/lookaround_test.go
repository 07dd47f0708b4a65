// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// TestReadersDoNotWaitForTheGuard: the guard may look at an image by way of the view itself, where a status file names an
// overlay over it. What it needs for that, and whoever only reads, locks or closes, does not wait until it has decided.
func TestReadersDoNotWaitForTheGuard(t *testing.T) {
	l := newLive(t)
	l.write(t, "image")
	held, err := os.OpenFile(l.path("image"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	asked, decide := make(chan struct{}), make(chan struct{})
	l.guard.answer(nil, func(*guard.Request) guard.Verdict {
		asked <- struct{}{}
		<-decide
		return guard.Verdict{Allowed: true}
	})
	opened := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(l.path("image"), os.O_WRONLY, 0)
		f.Close()
		opened <- err
	}()
	<-asked
	inTime(t, "reading", func() error { _, err := os.ReadFile(l.path("image")); return err })
	inTime(t, "stat", func() error { _, err := os.Stat(l.path("image")); return err })
	inTime(t, "a lock", func() error {
		return unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	})
	inTime(t, "close", held.Close)
	inTime(t, "status", func() error { l.FS.Stats(); l.FS.Holders(); return nil })
	close(decide)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
