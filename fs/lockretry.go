// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"
	"time"
)

// releaseDelay is how long after a close(2) a conflict with locks held through the closed handle may go by itself.
//
// Locally the locks of an open file are gone when close(2) of its last descriptor returns. Here the kernel sends FLUSH
// and waits for that, and then sends RELEASE and does not wait; the closer's next request may overtake it. QEMU closes one
// descriptor of an image and looks for locks through another in the same breath, and fails if it meets its own. A second is
// ages for a RELEASE, and little for whoever is refused because the handle has another descriptor that stays.
const releaseDelay = time.Second

// releaseDelayTakeover is the same for what a predecessor had open: its successor may have to wait for a processor, and comes to
// the RELEASE after all that was under way. On an emulated machine with ten times the work that it could do (Linux 5.10, a kill
// every few seconds) that was more than a second, and less than six.
const releaseDelayTakeover = 10 * time.Second

// leavingAgain is until when a predecessor's handle may be on its way out, if it was when the predecessor died: nobody took its
// RELEASE while there was no worker. A handle that was closed longer ago has another descriptor, and locks held through it are to
// be told of at once.
func leavingAgain(recorded time.Time) time.Time {
	if now := time.Now(); now.Sub(recorded) < releaseDelayTakeover {
		return now.Add(releaseDelayTakeover)
	}
	return time.Time{}
}

// retryLock does what may meet a lock, with the node locked, and once more when a handle has gone, as long as there is a
// conflict that may go by itself. try returns its outcome, whether that is a conflict, and for how long at most this
// one may pass. It is told whether there is time left for that.
//
// A signal does not end it: only F_SETLKW may answer EINTR (fcntl(2)), and QEMU, whose threads signal each other, would
// take that for a lock that it cannot get.
func (fs *FS) retryLock(n *node, try func(patient bool) (no syscall.Errno, conflict bool, left time.Duration)) syscall.Errno {
	a := n.activity()
	end := time.Now().Add(releaseDelayTakeover)
	for {
		a.mu.Lock()
		patience := time.Until(end)
		no, conflict, left := try(patience > 0)
		left = min(left, patience)
		if !conflict || left <= 0 {
			a.mu.Unlock()
			return no
		}
		changed := n.nextClosing()
		a.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// leaving says for how long locks of owners other than one may yet go by themselves; the node is locked.
func (o *openState) leaving(but uint64) (left time.Duration) {
	if o == nil {
		return 0
	}
	for owner, other := range o.locks {
		if owner != but {
			left = max(left, o.leavingOwner(other))
		}
	}
	return left
}

// leavingOwner says the same of one owner: its locks go when all handles that it locked through have gone.
func (o *openState) leavingOwner(own *lockOwner) time.Duration {
	left := releaseDelayTakeover
	for _, h := range o.handles {
		if _, ok := own.handles[h.fh]; ok {
			left = min(left, time.Until(h.leaving))
		}
	}
	return left
}
