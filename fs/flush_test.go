// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestFlushDoesNotWaitForTheGuard: a process in execve(2) closes its descriptors, and cannot be looked at in /proc until
// they are closed; the guard, while the node's deeds are locked, looks at all processes.
func TestFlushDoesNotWaitForTheGuard(t *testing.T) {
	const owner = 7
	for _, locked := range []bool{false, true} {
		w := newWorld(t)
		w.write("f", "x")
		fh := w.open("f", unix.O_RDWR)
		if locked {
			in := &fuse.LkIn{Fh: fh, Owner: owner, Lk: fuse.FileLock{Typ: unix.F_WRLCK, End: offsetMax, Pid: 1}}
			if code := w.SetLk(nil, in); !code.Ok() {
				t.Fatal(code)
			}
		}
		h, _ := w.handles.get(fh)
		h.node.activity().deeds.Lock() // as the guard does
		done := make(chan fuse.Status, 1)
		go func() { done <- w.Flush(nil, &fuse.FlushIn{Fh: fh, LockOwner: owner}) }()
		select {
		case code := <-done:
			if !code.Ok() {
				t.Error(code)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("close(2) waits for the guard")
		}
		h.node.activity().deeds.Unlock()
		for end := time.Now().Add(20 * time.Second); h.node.activity().lockers.Load() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the closer's locks have stayed")
			}
		}
	}
}
