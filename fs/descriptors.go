// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// budget counts this process's descriptors, so that no client is ever refused one while there are some that can be had
// again: those kept for nodes only save an open_by_handle_at(2).
type budget struct {
	limit  int64        // RLIMIT_NOFILE less what the daemon needs itself
	taken  atomic.Int64 // for clients: of handles and locks
	cached atomic.Int64 // of nodes
}

// How many descriptors are left for the daemon itself: evidence, the control socket, what a request opens for a moment.
const (
	reserveMin = 64
	reserveMax = 1024
)

func newBudget() budget {
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	most := int64(min(lim.Cur, 1<<30))
	return budget{limit: most - min(max(most/8, reserveMin), reserveMax)}
}

// room makes room for descriptors that are about to be opened for a client. ENFILE: clients have all that there are.
func (t *nodeTable) room(n int64) syscall.Errno {
	b := &t.budget
	taken := b.taken.Load() + n
	if taken > b.limit {
		return syscall.ENFILE
	}
	if over := taken + b.cached.Load() - b.limit; over > 0 {
		t.shed(over)
	}
	return 0
}

// cacheable says whether one more node may keep a descriptor, and makes room for it.
func (t *nodeTable) cacheable() bool {
	b := &t.budget
	cached := b.cached.Load()
	if cached >= b.limit/4*3 || b.taken.Load()+cached >= b.limit {
		return t.shed(1) > 0
	}
	return true
}

// shedMore is how many descriptors are closed beyond what is needed: the next ones need not look again.
const shedMore = 32

// shed closes descriptors of nodes that can be opened again, at least as many as asked for if there are so many, and
// returns how many it closed. It goes round the table.
func (t *nodeTable) shed(want int64) (shed int64) {
	var closing []int
	t.slotsMu.RLock()
	for range t.bySlot {
		n := t.bySlot[int(t.hand.Add(1))%len(t.bySlot)]
		if n == nil || n.named {
			continue
		}
		if fd, ok := n.path.takeIdle(); ok {
			closing = append(closing, fd)
			if int64(len(closing)) >= want+shedMore {
				break
			}
		}
	}
	t.slotsMu.RUnlock()
	t.budget.cached.Add(-int64(len(closing)))
	for _, fd := range closing {
		t.closeFd(fd)
	}
	return int64(len(closing))
}

// pruneBatch is how many nodes the kernel is asked to forget in one message.
const pruneBatch = 512

// prune asks the kernel to forget an eighth of the nodes, where it can be asked (Linux 6.18): it forgets those that nobody
// uses. Otherwise it would keep them for as long as it has memory, and the table would be full.
func (t *nodeTable) prune(ask func(ids []uint64) bool) {
	defer t.pruning.Store(false)
	nodes := t.all()
	if len(nodes) == 0 {
		return
	}
	var ids []uint64
	for range len(nodes)/8 + 1 {
		if n := nodes[int(t.hand.Add(1))%len(nodes)]; n.id != rootID {
			ids = append(ids, n.id)
		}
		if len(ids) == pruneBatch {
			if !ask(ids) {
				return
			}
			ids = nil
		}
	}
	ask(ids)
}

// crowded has nodes forgotten if the table fills up.
func (t *nodeTable) crowded() {
	if t.records.Used() < t.pruneAt {
		return
	}
	t.evict(0)
	if t.pruning.CompareAndSwap(false, true) {
		go t.prune(t.askToForget)
	}
}
