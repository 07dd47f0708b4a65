package viewfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// newFS builds the tables from the state.
func newFS(ctx context.Context, c *Config, tree *os.File, region *state.Region, host *Host, checker guard.Checker) (*FS, error) {
	procFd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/self/fd: %w (is /proc mounted?)", err)
	}
	m, err := openMounts(c, tree)
	if err != nil {
		return nil, err
	}
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		ctx:           ctx,
		log:           c.Log,
		guard:         checker,
		keeper:        c.Keeper,
		host:          host,
		region:        region,
		procFd:        procFd,
		intents:       state.NewIntents(region),
	}
	fs.passthrough.Store(c.Passthrough)
	fs.remote = isRemote(int(tree.Fd()))
	fs.restoreNodes(m)
	fs.restoreHandles(c.Kept)
	fs.restoreLocks(c.Kept)
	return fs, nil
}

// openMounts opens the backing tree's own file system, and those below it that a predecessor had met.
func openMounts(c *Config, tree *os.File) (*mounts, error) {
	m := &mounts{keeper: c.Keeper, byDev: map[uint64]int{}}
	root, err := openDir(int(tree.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Backing, err)
	}
	for i := 0; ; i++ {
		fd := root
		if i > 0 {
			kept, ok := c.Kept[mountName(i)]
			if !ok {
				return m, nil
			}
			fd = kept
		}
		var st syscall.Stat_t
		if err := fstat(fd, &st); err != nil {
			return nil, fmt.Errorf("stat a file system of %s: %w", c.Backing, err)
		}
		m.add(fd, st.Dev)
	}
}

// restoreChunk is how many nodes are allocated at a time: the kernel waits.
const restoreChunk = 512

func (fs *FS) restoreNodes(m *mounts) {
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	t := &nodeTable{mounts: m, maxFds: int64(lim.Cur / 4 * 3), indexed: make(chan struct{}), dropping: func(n *node) {
		if n.backing != 0 {
			fs.unregister(n)
		}
	}}
	count := int(fs.region.NodesHigh())
	t.bySlot = make([]*node, count)
	fs.nodes = t
	var chunk []node
	t.records = state.NewNodes(fs.region, func(slot uint32, rec *state.Node) {
		if len(chunk) == 0 {
			chunk = make([]node, restoreChunk)
		}
		n := &chunk[0]
		chunk = chunk[1:]
		n.id, n.key, n.slot, n.mode = rec.ID, guard.ID{Dev: rec.Dev, Ino: rec.Ino}, slot, rec.Mode
		n.lookups, n.backing, n.inherited = rec.Lookups, rec.Backing, true
		n.fd.Store(noFd)
		t.bySlot[slot] = n
	})
	go t.index(t.all())
}

// index finds nodes by inode; what needs that waits.
func (t *nodeTable) index(nodes []*node) {
	for i := range t.shards {
		t.shards[i].byKey = make(map[guard.ID]*node, len(nodes)/shardCount)
	}
	for _, n := range nodes {
		byKey := t.shardOf(n.key).byKey
		if byKey[n.key] == nil || t.exists(n) {
			byKey[n.key] = n
		}
	}
	close(t.indexed)
}

// exists tells which of two nodes with the same inode number is the one that is there: the other's file was removed, and
// the number given to a new one, before the kernel had forgotten it.
func (t *nodeTable) exists(n *node) bool {
	fd, err := t.reach(n)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// addRoot makes the root of a new view.
func (fs *FS) addRoot() error {
	fd, err := unix.FcntlInt(uintptr(fs.nodes.mounts.fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		fd, err = unix.Openat(fd, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("open the root of the backing tree: %w", err)
	}
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil {
		return fmt.Errorf("stat the root of the backing tree: %w", err)
	}
	n, no := fs.nodes.remember(fd, &st, &node{id: rootID}, ".")
	if no != 0 || n.id != rootID {
		return fmt.Errorf("the root got node id %d: %w", n.id, no)
	}
	return nil
}

func (fs *FS) restoreHandles(kept map[string]int) {
	fs.handles = &handleTable{byFH: map[uint64]*handle{}, answers: map[uint64]*handle{}, opening: fs.ensure}
	fs.handles.records = state.NewHandles(fs.region, func(slot uint32, rec *state.Handle) {
		h := &handle{
			fh:     rec.FH,
			slot:   slot,
			fd:     noFd,
			flags:  int(rec.Flags),
			mode:   rec.Mode,
			unique: rec.Unique,
			opener: guard.Process{PID: int(rec.PID), Start: rec.Start, Class: classOf(rec.Class)},
			since:  time.Unix(int64(rec.Opened), 0),
			closed: time.Now(), // for all we know
		}
		n, no := fs.nodes.get(rec.Node)
		if no != 0 {
			// The kernel forgets a node only after its handles: this handle's RELEASE is on its way.
			n = &node{id: rec.Node}
			n.fd.Store(noFd)
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
		fs.handles.byFH[h.fh] = h
		fs.handles.answers[h.unique] = h
		if h.mode&state.ModeDir == 0 {
			n.attach(h)
			if h.mode&state.ModePassthrough != 0 {
				n.open.backing = n.backing
			}
		}
	})
}

func (fs *FS) restoreLocks(kept map[string]int) {
	var stale []uint32
	fs.locks = state.NewLocks(fs.region, func(slot uint32, rec *state.Lock) {
		fd, ok := kept[lockName(slot)]
		delete(kept, lockName(slot))
		h, no := fs.handles.peek(rec.FH)
		if !ok || no != 0 || h.node.id != rec.Node || h.node.open == nil {
			// The worker died between the record and the descriptor, or the handle and its locks.
			stale = append(stale, slot)
			if ok {
				unlockAll(fd)
			}
			return
		}
		o := h.node.open
		if o.locks == nil {
			o.locks = map[uint64]*lockOwner{}
		}
		if own := o.locks[rec.Owner]; own != nil {
			own.handles[rec.FH] = slot
			unix.Close(fd)
			return
		}
		o.locks[rec.Owner] = &lockOwner{fd: fd, pid: rec.PID, handles: map[uint64]uint32{rec.FH: slot}}
		h.node.lockers.Add(1)
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
		default:
			unix.Close(fd)
		}
		fs.keeper.Drop(name)
		delete(kept, name)
	}
}

// takeOver goes on where a predecessor ended. The order matters: everything is in place before the server starts; the
// kernel sends again what was in flight before the first request is read, so none is answered twice.
func takeOver(ctx context.Context, c *Config) (*Session, error) {
	treeFd, ok := c.Kept[keptTree]
	memFd, ok2 := c.Kept[keptState]
	if !ok || !ok2 {
		return nil, errors.New("the keeper holds a FUSE connection, but not its backing tree and state")
	}
	tree := os.NewFile(uintptr(treeFd), c.Backing)
	region, err := state.Open(os.NewFile(uintptr(memFd), keptState))
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", c.Mountpoint, err)
	}
	init := region.Init()
	if init == nil {
		return nil, fmt.Errorf("take over %s: %w: no INIT was saved", c.Mountpoint, state.ErrCorrupt)
	}
	s, err := newSession(ctx, c, tree, region)
	if err != nil {
		return nil, err
	}
	dev := os.NewFile(uintptr(c.Kept[keptDevice]), "/dev/fuse")
	defer dev.Close() // the server has a descriptor of its own
	if region.Generation() == 0 {
		// Mounted by Prepare, or by a worker that died before it served.
		if err := s.begin(c, dev, init); err != nil {
			return nil, err
		}
		return s, nil
	}
	if err := s.connect(c, dev, init, func([]byte) error { return nil }); err != nil {
		return nil, err
	}
	s.FS.reclaimBacking(c.Log)
	if err := resend(dev); err != nil {
		c.Log.Warn("the kernel does not send again what was in flight", "error", err)
	}
	s.FS.expectReleases()
	return s, nil
}

// resend asks the kernel to send again all requests that it has had no answer to (FUSE_NOTIFY_RESEND, Linux 6.9).
func resend(dev *os.File) error {
	const code = 7
	msg := binary.NativeEndian.AppendUint32(nil, 16) // struct fuse_out_header
	msg = binary.NativeEndian.AppendUint32(msg, code)
	msg = binary.NativeEndian.AppendUint64(msg, 0)
	_, err := dev.Write(msg)
	return err
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
		if id := n.backing; id < 0 || id > 0 && n.open == nil && fs.backingNeedsFile.Load() {
			fs.srv.UnregisterBackingFd(max(id, -id)) // ENOENT: it had been taken back
			n.backing = 0
			fs.nodes.records.SetBacking(n.slot, 0)
		} else if id > fs.region.MaxBackingID() {
			recorded[id] = true
		}
	}
	for id := fs.region.MaxBackingID() + 1; id <= probe; id++ {
		if !recorded[id] {
			fs.srv.UnregisterBackingFd(id)
		}
	}
	fs.region.RaiseBackingID(probe)
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
