// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNobodyWaitsForALongClose: to close the last descriptor of a removed file frees its blocks, which takes minutes for
// a large one. Whoever else works in the view does not notice: with a file, a directory, a lock, a question to the daemon.
func TestNobodyWaitsForALongClose(t *testing.T) {
	closing, free := make(chan int, 16), make(chan struct{})
	l := newLive(t, func(l *live) {
		l.FS.nodes.closeFd = func(fd int) {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Nlink == 0 {
				closing <- fd
				<-free
			}
			closeFd(fd)
		}
	})
	for i := range 300 { // in every shard of the table
		l.write(t, fmt.Sprint("other", i))
	}
	l.write(t, "large")
	f, err := os.OpenFile(l.path("large"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.path("large")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	<-closing
	inTime(t, "work with other files", func() error {
		for i := range 300 {
			name := l.path(fmt.Sprint("other", i))
			if _, err := os.ReadFile(name); err != nil {
				return err
			}
			if err := os.Rename(name, name+"x"); err != nil {
				return err
			}
			if err := os.Remove(name + "x"); err != nil {
				return err
			}
		}
		return os.WriteFile(l.path("new"), nil, 0o600)
	})
	inTime(t, "status", func() error {
		l.FS.Stats()
		l.FS.Images(context.Background())
		l.FS.Holders()
		return nil
	})
	close(free)
}
