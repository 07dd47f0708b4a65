// SPDX-License-Identifier: Apache-2.0

package mounttable

import (
	"context"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// TestReader: a change is seen at once, by who asks and by who waits. (Go's own poller once took the kernel's word for it.)
func TestReader(t *testing.T) {
	need.Have(t, need.Root, need.Mounting)
	runtime.LockOSThread() // its mount namespace dies with the thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	open := func() *Reader {
		fd, err := unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return NewReader(fd)
	}
	asked, followed, dir := open(), open(), t.TempDir()
	defer asked.Close()
	if _, err := asked.Table(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tables, seen := make(chan *Table), make(chan bool, 1)
	go followed.Follow(ctx, func(t *Table) {
		select {
		case tables <- t:
		case <-ctx.Done():
		}
	})
	<-tables // as it was
	go func() {
		for table := range tables {
			if m := table.Topmost(dir); m != nil {
				seen <- true
				return
			}
		}
	}()
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	if table, err := asked.Table(); err != nil || table.Topmost(dir) == nil {
		t.Errorf("who asks does not see the mount: %v", err)
	}
	select {
	case <-seen:
	case <-ctx.Done():
		t.Error("who follows does not see the mount")
	}
}
