// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A worker that is killed between counting a lookup and answering, or between reading a FORGET and acting on it, leaves
// a count that is too high: the node would never go. So after a take-over the nodes that were inherited are held up to
// the kernel, which knows best: a notification about a node that it does not have is answered ENOENT.
//
// A count that is too low does not happen: a lookup is counted before it is answered.

// How long after a take-over, and how often from then on, inherited nodes are held up to the kernel: ever more seldom. An
// answer may have reached the kernel whose caller has not made an inode of it yet; a second is ages for that.
const (
	reconcileAfter = time.Second
	reconcileEvery = 30 * time.Second
	reconcileMax   = 30 * time.Minute
)

// reconcile runs until every inherited node has been forgotten, or the view ends.
func (fs *FS) reconcile(ctx context.Context) {
	pause := reconcileAfter
	for inherited := fs.nodes.inherited(); len(inherited) > 0; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		inherited = slices.DeleteFunc(inherited, fs.compare)
		pause = min(max(reconcileEvery, 2*pause), reconcileMax)
	}
}

// compare forgets a node that the kernel does not have, if no lookup of it was counted since the last round, and says
// whether it is forgotten: from then on its count is true. The node's shard is locked over the question, so that none
// comes in between; the notification itself (attributes only) waits for nothing that could wait for us.
func (fs *FS) compare(n *node) (forgotten bool) {
	s := fs.nodes.shard(n.key)
	s.mu.Lock()
	if !fs.nodes.has(n) || fs.nodes.lookups(n) == 0 {
		s.mu.Unlock()
		return true
	}
	gone := fs.gone(n)
	if gone {
		fs.nodes.beginRetiring(s, n)
	}
	s.mu.Unlock()
	if gone {
		fs.nodes.retire(n)
	}
	return gone
}

// gone says that the kernel does not have a node; its shard is locked.
func (fs *FS) gone(n *node) bool {
	if n.counted {
		// An answer that names it may be on its way, or an operation hold it: the next round will tell.
		n.counted = false
		return false
	}
	return fs.srv.InodeNotify(n.id, -1, 0) == fuse.Status(syscall.ENOENT)
}

// inherited lists the nodes that a predecessor made and the kernel may still have.
func (t *nodeTable) inherited() []*node {
	var list []*node
	for _, n := range t.all() {
		if n.inherited && n.id != rootID {
			list = append(list, n)
		}
	}
	return list
}
