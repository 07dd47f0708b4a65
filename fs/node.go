package viewfs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// node is an inode of the backing tree that the kernel knows by an id.
type node struct {
	id   uint64
	key  guard.ID
	slot uint32
	mode uint32 // file type bits
	// fd is an O_PATH descriptor, or noFd: then the file is opened by its handle for each operation.
	fd atomic.Int32
	// lookups is how often the kernel has been told of the node; guarded by the shard of its key.
	lookups uint64
	// inherited is set on a node of a predecessor: its lookup count may be too high (see reconcile.go).
	inherited bool
	// counted is set when a lookup is counted, and cleared by reconcile; guarded by the shard.
	counted bool

	// mu serialises opening and closing of this inode: the verdict, the open itself and its entry in the handle table
	// are one step, so that two writers cannot pass each other. Lock order: mu, then a shard, then the handle table.
	mu   sync.Mutex
	open *openState // nil while nothing is open
	// removed is set when a name of it was to be removed through the view; guarded by mu.
	removed bool
	// backing is the id under which the kernel has the backing file, 0: none; guarded by mu.
	backing int32
	// writers counts the open handles that may write.
	writers atomic.Int32
	// lockers counts the owners of locks.
	lockers atomic.Int32
}

const noFd = -1

// rootID is the root's node id, fixed by the FUSE protocol.
const rootID = 1

func (n *node) regular() bool { return n.mode == syscall.S_IFREG }
func (n *node) dir() bool     { return n.mode == syscall.S_IFDIR }

// nodeTable finds nodes by id and by inode. The kernel's references keep a node in it: each answer that names a node
// counts one lookup, FORGET takes them back.
type nodeTable struct {
	records *state.Nodes
	mounts  *mounts
	// maxFds is how many O_PATH descriptors nodes may keep; past that, nodes are opened by handle each time.
	maxFds int64
	fds    atomic.Int64
	// dropping is called with a node that the kernel has forgotten, before its record goes.
	dropping func(*node)

	slotsMu sync.RWMutex
	bySlot  []*node

	shards [shardCount]shard
	// indexed is closed when the shards have all that a predecessor left: that is found by id already.
	indexed chan struct{}
}

const shardCount = 64

type shard struct {
	mu    sync.Mutex
	byKey map[guard.ID]*node
}

// shard is where an inode's node is to be found.
func (t *nodeTable) shard(k guard.ID) *shard {
	<-t.indexed
	return t.shardOf(k)
}

func (t *nodeTable) shardOf(k guard.ID) *shard {
	return &t.shards[(k.Ino^k.Ino>>6^k.Dev)%shardCount]
}

// get finds a node by the kernel's id. ESTALE: no such node.
func (t *nodeTable) get(id uint64) (*node, syscall.Errno) {
	slot := uint32(id) - 1
	t.slotsMu.RLock()
	defer t.slotsMu.RUnlock()
	if int(slot) < len(t.bySlot) {
		if n := t.bySlot[slot]; n != nil && n.id == id {
			return n, 0
		}
	}
	return nil, syscall.ESTALE
}

func (t *nodeTable) set(slot uint32, n *node) {
	t.slotsMu.Lock()
	defer t.slotsMu.Unlock()
	for int(slot) >= len(t.bySlot) {
		t.bySlot = append(t.bySlot, make([]*node, max(64, len(t.bySlot)/4))...)
	}
	t.bySlot[slot] = n
}

// find returns the node of an inode without counting a lookup, nil if the kernel does not know it.
func (t *nodeTable) find(k guard.ID) *node {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byKey[k]
}

// known counts a lookup of an inode whose node is held by a descriptor, so that (device, inode) cannot mean another
// file; nil if there is no such node.
func (t *nodeTable) known(k guard.ID) *node {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byKey[k]
	if n == nil || n.fd.Load() == noFd {
		return nil
	}
	t.count(n, n.lookups+1)
	return n
}

// remember counts a lookup of the inode that fd (O_PATH) stands for, and makes a node of it if it is new. It takes fd
// over. parent and name are kept for file systems that have no file handles.
func (t *nodeTable) remember(fd int, st *syscall.Stat_t, parent *node, name string) (*node, syscall.Errno) {
	k := guard.ID{Dev: st.Dev, Ino: st.Ino}
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.byKey[k]; n != nil && t.same(n, fd) {
		if n.fd.Load() != noFd || !t.keep(n, fd) {
			unix.Close(fd)
		}
		t.count(n, n.lookups+1)
		return n, 0
	}
	rec := &state.Node{Lookups: 1, Dev: k.Dev, Ino: k.Ino, Mode: st.Mode & syscall.S_IFMT}
	rec.Mount = t.mounts.index(fd, st, parent)
	rec.Handle = fileHandle(fd)
	if rec.Mount == noMount || len(rec.Handle.Bytes) == 0 {
		rec.Handle = state.FileHandle{}
		rec.Parent, rec.Name = parent.id, name
	}
	slot, ok := t.records.Add(rec)
	if !ok {
		unix.Close(fd)
		return nil, syscall.ENFILE
	}
	n := &node{id: rec.ID, key: k, slot: slot, mode: rec.Mode, lookups: 1}
	n.fd.Store(noFd)
	if !t.keep(n, fd) {
		if rec.Name == "" {
			unix.Close(fd)
		} else {
			n.fd.Store(int32(fd)) // nothing else finds it again
		}
	}
	s.byKey[k] = n
	t.set(slot, n)
	return n, 0
}

// same says whether a node's inode is the one that fd stands for. A node that holds a descriptor pins its inode; for
// another, the inode number may have been given to a new file since, and the handle tells them apart.
func (t *nodeTable) same(n *node, fd int) bool {
	if n.fd.Load() != noFd {
		return true
	}
	h := fileHandle(fd)
	rec, ok := t.records.Read(n.slot)
	return ok && h.Type == rec.Handle.Type && string(h.Bytes) == string(rec.Handle.Bytes)
}

// keep gives fd to the node, if there is room for one more.
func (t *nodeTable) keep(n *node, fd int) bool {
	if t.fds.Load() >= t.maxFds || !n.fd.CompareAndSwap(noFd, int32(fd)) {
		return false
	}
	t.fds.Add(1)
	return true
}

func (t *nodeTable) count(n *node, lookups uint64) {
	n.counted = n.counted || lookups > n.lookups
	n.lookups = lookups
	t.records.SetLookups(n.slot, lookups)
}

// forget takes back lookups, and drops the node when none is left.
func (t *nodeTable) forget(id, lookups uint64) {
	n, no := t.get(id)
	if no != 0 || id == rootID {
		return
	}
	s := t.shard(n.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if lookups < n.lookups {
		t.count(n, n.lookups-lookups)
		return
	}
	t.drop(s, n)
}

// drop removes a node; its shard is locked.
func (t *nodeTable) drop(s *shard, n *node) {
	if s.byKey[n.key] == n {
		delete(s.byKey, n.key)
	}
	t.dropping(n)
	t.set(n.slot, nil)
	n.lookups = 0
	t.records.Remove(n.slot)
	if fd := n.fd.Swap(noFd); fd != noFd {
		unix.Close(int(fd))
		t.fds.Add(-1)
	}
}

// byID is get and acquire, for an operation on the node that a request names.
func (t *nodeTable) byID(id uint64) (n *node, fd int, release func(), no syscall.Errno) {
	if n, no = t.get(id); no != 0 {
		return nil, -1, nil, no
	}
	fd, release, no = t.acquire(n)
	return n, fd, release, no
}

// acquire returns an O_PATH descriptor of the node and what to call when done with it. The kernel sends nothing for a
// node that it has forgotten, so the descriptor stays open for as long as a request is under way. ESTALE: the file is
// gone, and was not held.
func (t *nodeTable) acquire(n *node) (fd int, release func(), no syscall.Errno) {
	if fd := n.fd.Load(); fd != noFd {
		return int(fd), func() {}, 0
	}
	fd, err := t.reach(n)
	if err != nil {
		return -1, nil, errno(err)
	}
	if t.keep(n, fd) {
		return fd, func() {}, 0
	}
	return fd, func() { unix.Close(fd) }, 0
}

// reach opens a node that no descriptor is kept of: by its file handle, or by parent and name.
func (t *nodeTable) reach(n *node) (int, error) {
	rec, ok := t.records.Read(n.slot)
	if !ok || rec.ID != n.id {
		return -1, syscall.ESTALE
	}
	if len(rec.Handle.Bytes) > 0 {
		mount, ok := t.mounts.fd(rec.Mount)
		if !ok {
			return -1, syscall.ESTALE
		}
		return openHandle(mount, rec.Handle)
	}
	parent, no := t.get(rec.Parent)
	if no != 0 {
		return -1, syscall.ESTALE
	}
	pfd, release, no := t.acquire(parent)
	if no != 0 {
		return -1, no
	}
	defer release()
	fd, err := openPath(pfd, rec.Name)
	if err != nil {
		return -1, syscall.ESTALE
	}
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil || (guard.ID{Dev: st.Dev, Ino: st.Ino}) != n.key {
		unix.Close(fd)
		return -1, syscall.ESTALE
	}
	return fd, nil
}

// all lists the nodes that the kernel knows.
func (t *nodeTable) all() []*node {
	t.slotsMu.RLock()
	defer t.slotsMu.RUnlock()
	list := make([]*node, 0, len(t.bySlot))
	for _, n := range t.bySlot {
		if n != nil {
			list = append(list, n)
		}
	}
	return list
}

// size is the number of nodes that the kernel knows, the root included.
func (t *nodeTable) size() int {
	total := 0
	<-t.indexed
	for i := range t.shards {
		t.shards[i].mu.Lock()
		total += len(t.shards[i].byKey)
		t.shards[i].mu.Unlock()
	}
	return total
}

// moved notes where a node is to be found now, if it is found by parent and name.
func (t *nodeTable) moved(n *node, p place) {
	if rec, ok := t.records.Read(n.slot); ok && len(rec.Handle.Bytes) == 0 {
		t.records.SetName(n.slot, p.parent.id, p.name)
	}
}
