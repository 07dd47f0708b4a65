// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// closeFd is close(2). What has been asked to be closed cannot fail to be.
func closeFd(fd int) { _ = unix.Close(fd) }

// restoreChunk is how many nodes are allocated at a time: the kernel waits.
const restoreChunk = 512

func (fs *FS) restoreNodes(m *mounts) {
	t := &nodeTable{
		mounts: m, budget: newBudget(), closeFd: closeFd, indexed: make(chan struct{}), unregister: fs.unregister,
		askToForget: func(ids []uint64) bool { return fs.srv.PruneNotify(ids).Ok() }, pruneAt: state.MaxNodes / 4 * 3,
	}
	count := int(fs.region.NodesHigh())
	t.bySlot = make([]*node, count)
	fs.nodes = t
	var chunk []node
	t.records = state.NewNodes(fs.region, func(slot uint32, rec *state.Node) {
		forgotten := rec.Lookups == 0 && rec.ID != rootID
		if forgotten && (rec.Name != "" || rec.Backing != 0) {
			t.ending = append(t.ending, ending{slot, rec.Backing, rec.Name != ""})
		}
		switch {
		case forgotten && rec.Name != "":
			return
		case forgotten:
			t.forgotten.Add(1)
			rec.Backing = 0 // see finishForgetting
		}
		if len(chunk) == 0 {
			chunk = make([]node, restoreChunk)
		}
		n := &chunk[0]
		chunk = chunk[1:]
		n.id, n.key, n.kind = rec.ID, guard.ID{Dev: rec.Dev, Ino: rec.Ino}, kindOf(rec.Mode)
		n.inherited, n.named = !forgotten, rec.Name != ""
		if rec.Backing != 0 {
			n.activity().backing = rec.Backing
		}
		t.bySlot[slot] = n
	})
	go t.index(t.all())
}

// ending is the record of a node that the kernel had forgotten when its worker died.
type ending struct {
	slot    uint32
	backing int32
	named   bool
}

// finishForgetting does what a predecessor did not come to.
func (fs *FS) finishForgetting() {
	for _, e := range fs.nodes.ending {
		if e.backing != 0 {
			fs.takeBack(max(e.backing, -e.backing))
		}
		fs.nodes.records.SetBacking(e.slot, 0)
		if e.named {
			fs.nodes.records.Remove(e.slot)
		}
	}
	fs.nodes.ending = nil
}

// index finds nodes by inode; what needs that waits.
func (t *nodeTable) index(nodes []*node) {
	for _, n := range nodes {
		byKey := &t.shardOf(n.key).byKey
		if byKey.get(n.key) == nil || t.exists(n) {
			byKey.put(n)
		}
	}
	close(t.indexed)
}

// exists tells which of two nodes with the same inode number is the one that is there: the other's file was removed, and
// the number given to a new one, before the kernel had forgotten it.
func (t *nodeTable) exists(n *node) bool {
	fd, err := t.reach(n, 0)
	if err == nil {
		t.closeFd(fd)
	}
	return err == nil
}

func (fs *FS) restoreHandles(kept map[string]int) {
	fs.handles = &handleTable{byFH: map[uint64]*handle{}, answers: map[uint64]*handle{}, opening: fs.ensure, budget: &fs.nodes.budget}
	fs.handles.records = state.NewHandles(fs.region, func(slot uint32, rec *state.Handle) {
		h := &handle{
			fh:      rec.FH,
			slot:    slot,
			fd:      noFd,
			flags:   int(rec.Flags),
			mode:    rec.Mode,
			unique:  rec.Unique,
			opener:  guard.Process{PID: int(rec.PID), Start: rec.Start, Class: classOf(rec.Class)},
			since:   time.Unix(int64(rec.Opened), 0),
			leaving: leavingAgain(rec.Closed),
		}
		n, no := fs.nodes.get(rec.Node)
		if no != 0 {
			// The kernel forgets a node only after its handles: this handle's RELEASE is on its way.
			n = &node{id: rec.Node}
		}
		h.node = n
		if h.mode&state.ModeDir != 0 {
			h.dir = &dirStream{dev: h.node.key.Dev}
		}
		// A record may say that the descriptor is kept, of a worker that was killed before it could send it.
		if h.fd, h.kept = kept[handleName(slot)]; !h.kept {
			h.fd, h.late.released = noFd, rec.Kept
			h.late.pending.Store(true)
		}
		delete(kept, handleName(slot))
		fs.nodes.budget.taken.Add(1)
		fs.handles.byFH[h.fh] = h
		fs.handles.answers[h.unique] = h
		if h.mode&state.ModeDir == 0 {
			n.attach(h)
			n.activity().open.passed = h.mode&state.ModePassthrough != 0
		}
	})
}

func (fs *FS) restoreLocks(kept map[string]int) {
	var stale []uint32
	fs.locks = state.NewLocks(fs.region, func(slot uint32, rec *state.Lock) {
		fd, ok := kept[lockName(slot)]
		delete(kept, lockName(slot))
		h, no := fs.handles.peek(rec.FH)
		if !ok || no != 0 || h.node.id != rec.Node || h.node.activity().open == nil {
			// The worker died between the record and the descriptor, or the handle and its locks.
			stale = append(stale, slot)
			if ok {
				unlockAll(fd)
				closeFd(fd)
			}
			return
		}
		o := h.node.activity().open
		if o.locks == nil {
			o.locks = map[uint64]*lockOwner{}
		}
		if own := o.locks[rec.Owner]; own != nil {
			own.handles[rec.FH] = slot
			unix.Close(fd)
			return
		}
		o.locks[rec.Owner] = &lockOwner{fd: fd, pid: rec.PID, handles: map[uint64]uint32{rec.FH: slot}}
		h.node.activity().lockers.Add(1)
		fs.nodes.budget.taken.Add(1)
	})
	for _, slot := range stale {
		fs.forgetLock(slot)
	}
	fs.sweep(kept)
}

// sweep lets go of the keeper's descriptors that no record names: a worker died between its word to the keeper and the
// record, or the other way round. Held, they would keep a removed file's blocks, or a lock.
func (fs *FS) sweep(kept map[string]int) {
	for name, fd := range kept {
		switch slot, ok := slotOf(name); {
		case !ok:
			continue // the session's own
		case name == lockName(slot):
			unlockAll(fd)
		}
		closeFd(fd)
		fs.keeper.Drop(name)
		delete(kept, name)
	}
}

// reclaimBacking takes back backing ids that a predecessor registered and did not live to record, or to take back.
func (fs *FS) reclaimBacking(log *slog.Logger) {
	if !fs.passthrough.Load() {
		return
	}
	// The kernel gives ids in rising order, so a new one shows which were given out since the last recorded one.
	probe, no := fs.probeBacking()
	if no != 0 {
		log.Info("cannot look for lost backing ids", "errno", no)
		return
	}
	recorded := map[int32]bool{}
	for _, n := range fs.nodes.all() {
		a := n.active()
		if a == nil {
			continue
		}
		if id := a.backing; id < 0 || id > 0 && a.open == nil && fs.backingNeedsFile.Load() {
			fs.takeBack(max(id, -id))
			a.backing = 0
			fs.nodes.records.SetBacking(n.slot(), 0)
		} else if id > fs.region.MaxBackingID() {
			recorded[id] = true
		}
	}
	for id := fs.region.MaxBackingID() + 1; id <= probe; id++ {
		if !recorded[id] {
			fs.takeBack(id)
		}
	}
	fs.region.RaiseBackingID(probe)
}

// takeBack takes a backing id back. ENOENT: it had been; what else goes wrong leaves a file open until the unmount.
func (fs *FS) takeBack(id int32) {
	if no := fs.srv.UnregisterBackingFd(id); no != 0 && no != syscall.ENOENT {
		fs.log.Warn("the kernel keeps a file that passthrough no longer needs", "id", id, "errno", no)
	}
}

// probeBacking registers a file for nothing. An older kernel does not take an O_PATH descriptor (see register).
func (fs *FS) probeBacking() (int32, syscall.Errno) {
	mem := int(fs.region.File().Fd())
	path, err := unix.Open(procPath(mem), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, errno(err)
	}
	defer unix.Close(path)
	id, no := fs.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(path)})
	if no == syscall.EBADF {
		fs.backingNeedsFile.Store(true)
		id, no = fs.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(mem)})
	}
	return id, no
}
