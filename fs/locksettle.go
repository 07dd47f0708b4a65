package viewfs

import (
	"syscall"
	"time"
)

// lockSettle is how long after a close(2) a conflict with locks held through the closed handle may go by itself.
//
// Locally the locks of an open file are gone when close(2) of its last descriptor returns. Here the kernel sends FLUSH
// and waits for that, and then sends RELEASE and does not wait; the closer's next request may overtake it, above all
// when a take-over comes in between. QEMU closes one descriptor of an image and looks for locks through another in
// the same breath, and fails if it meets its own. A second is ages for a RELEASE, and little for whoever is refused
// because the handle has another descriptor that stays.
const lockSettle = time.Second

// resentSettle is the same for the handles of a predecessor, any of which may have been closed: what was in flight then is
// read before everything else. It is shorter than the time between kills that come one upon the other, or a lock that
// is really held would never be told of.
const resentSettle = 100 * time.Millisecond

// settled does what may meet a lock, with the node locked, and once more when a handle has gone, as long as there is a
// conflict that may go by itself. try returns its outcome, whether that is a conflict, and for how long at most this
// one may settle. It is told whether there is time left for that.
func (fs *FS) settled(cancel <-chan struct{}, n *node, try func(patient bool) (no syscall.Errno, conflict bool, left time.Duration)) syscall.Errno {
	end := time.Now().Add(lockSettle)
	for {
		n.mu.Lock()
		patience := time.Until(end)
		no, conflict, left := try(patience > 0)
		left = min(left, patience)
		if !conflict || left <= 0 {
			n.mu.Unlock()
			return no
		}
		changed := n.changes()
		n.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-cancel:
			timer.Stop()
			return syscall.EINTR
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
	left := lockSettle
	for _, h := range o.handles {
		if _, ok := own.handles[h.fh]; ok {
			left = min(left, lockSettle-time.Since(h.closed))
		}
	}
	return left
}

// expectReleases marks a predecessor's handles: the RELEASE of any may be among what the kernel sends again.
func (fs *FS) expectReleases() {
	closed := time.Now().Add(resentSettle - lockSettle)
	for _, n := range fs.handles.openNodes() {
		n.mu.Lock()
		if n.open != nil && len(n.open.locks) > 0 {
			for _, h := range n.open.handles {
				h.closed = closed
			}
		}
		n.mu.Unlock()
	}
}
