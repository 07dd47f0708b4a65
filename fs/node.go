// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"imgward/guard"
)

// node is an inode of the backing tree that the kernel knows by an id. There may be millions, most of which were only
// listed: what most do not need is in activity.
type node struct {
	id   uint64
	key  guard.ID
	path pathFd                   // without one, the file is opened by its handle for each operation
	acts atomic.Pointer[activity] // nil: nothing has befallen it yet; see activity and active
	// retiring counts the goroutines that give up what it held when the kernel has forgotten it (retire). It is guarded by
	// the shard of its key, as is the count of lookups, which is in its record alone (nodeTable.lookups).
	retiring int32
	kind     uint8 // file type, the upper bits of a mode
	// named is set where the file system has no handles: the file is found by parent and name, as long as it has that.
	named bool
	// inherited is set on a node of a predecessor: its lookup count may be too high (see reconcile.go).
	inherited bool
	// counted is set when a lookup is counted, and cleared by reconcile; guarded by the shard.
	counted bool
}

// activity is what a node has beside, from the first time on that it is opened or judged.
type activity struct {
	// deeds makes the guard's verdict, the deed and its entry in the handle table one step, so that two writers cannot
	// pass each other. It is held while the guard looks around, which may take seconds and come back here (an overlay
	// over the view): nobody waits for it who only reads, closes, locks, or asks what is open.
	//
	// Lock order: deeds, then mu, then a shard, then the handle table. Nothing that takes long happens under the last
	// three: the last close of a removed file frees its blocks.
	deeds sync.Mutex
	mu    sync.Mutex
	open  *openState // nil while nothing is open
	// closings counts the handles that have gone.
	closings atomic.Uint64
	// backing is the id under which the kernel has the backing file, 0: none; guarded by mu.
	backing int32
	// writers counts the open handles that may write.
	writers atomic.Int32
	// lockers counts the owners of locks.
	lockers atomic.Int32
	// removed is set when its last name was to be removed through the view; guarded by mu.
	removed bool
}

// activity is the node's, made at first need; it stays the same one for as long as there is the node.
func (n *node) activity() *activity {
	if a := n.acts.Load(); a != nil {
		return a
	}
	n.acts.CompareAndSwap(nil, &activity{}) // or somebody else's
	return n.acts.Load()
}

// active is the node's activity, nil if it has none: then nothing is open, locked or registered.
func (n *node) active() *activity { return n.acts.Load() }

const noFd = -1

// rootID is the root's node id, fixed by the FUSE protocol.
const rootID = 1

// slot is the node's place in the table and in the state, which its id carries (state.Nodes.Add).
func (n *node) slot() uint32 { return uint32(n.id) - 1 }

const kindShift = 12

func kindOf(mode uint32) uint8 { return uint8(mode & syscall.S_IFMT >> kindShift) }

func (n *node) mode() uint32  { return uint32(n.kind) << kindShift }
func (n *node) regular() bool { return n.mode() == syscall.S_IFREG }
func (n *node) dir() bool     { return n.mode() == syscall.S_IFDIR }
