// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// This file is how a worker starts, in its order. A new view: mountNew (prepare.go) or Prepare in another process, then begin.
// One that a predecessor served: takeOver. Both build the file system over the state (newSession, restore.go) and then
// connect it to the kernel.

// Config is what a worker needs to serve a view.
type Config struct {
	Options
	Log    *slog.Logger
	Keeper Keeper
	// Kept are the descriptors that a predecessor left with the keeper; empty for a new mount.
	Kept map[string]int
	// NewGuard makes the guard, with the way to the files that evidence names.
	NewGuard func(guard.Host) (guard.Checker, error)
}

// Start mounts a view, or takes over one whose worker has gone. When it returns, the view can be used as soon as Serve
// is called.
func Start(ctx context.Context, c *Config) (*Session, error) {
	RaiseFileLimit(c.Log)
	raiseProcs()
	unix.Umask(0)
	if _, ok := c.Kept[keptDevice]; ok {
		return takeOver(ctx, c)
	}
	return startNew(ctx, c)
}

// startNew makes a new connection, mounts it and serves it.
func startNew(ctx context.Context, c *Config) (*Session, error) {
	m, err := mountNew(c)
	if err != nil {
		return nil, err
	}
	s, err := m.serve(ctx, c)
	if err != nil {
		// Nobody can have used it yet: the kernel has had no answer to its first request.
		return nil, errors.Join(err, unix.Unmount(c.Mountpoint, unix.MNT_DETACH))
	}
	return s, nil
}

func (m *mounted) serve(ctx context.Context, c *Config) (*Session, error) {
	if err := m.keep(c.Keeper); err != nil {
		return nil, err
	}
	s, err := newSession(ctx, c, m.tree, m.region)
	if err != nil {
		return nil, err
	}
	return s, s.begin(c, m.dev, m.region.Init())
}

// takeOver goes on where a predecessor ended. The order matters: everything is in place before the loop starts, with the
// requests that the predecessor has left.
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
	s.FS.finishForgetting()
	s.FS.reclaimBacking(c.Log)
	return s, nil
}

// begin starts the first worker of a view: it has a root, and the kernel gets its answer.
func (s *Session) begin(c *Config, dev *os.File, init []byte) error {
	if _, no := s.FS.nodes.get(rootID); no != 0 {
		if err := s.FS.addRoot(); err != nil {
			return err
		}
	}
	return s.connect(c, dev, init, func(answer []byte) error {
		_, err := dev.Write(answer)
		if errors.Is(err, unix.ENOENT) {
			return nil // a worker before this one had answered when it died
		}
		return err
	})
}

// newSession builds the file system over the state, which may be empty or a predecessor's.
func newSession(ctx context.Context, c *Config, tree *os.File, region *state.Region) (*Session, error) {
	host, err := hostOf(c.Kept, int(tree.Fd()), region.Device())
	if err != nil {
		return nil, err
	}
	checker, err := c.NewGuard(host)
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	fs, err := newFS(ctx, c, tree, region, host, checker)
	if err != nil {
		return nil, err
	}
	return &Session{FS: fs, Dev: region.Device(), Tree: tree, log: c.Log, mountpoint: c.Mountpoint, watch: keptOr(c.Kept, keptWatch, -1),
		heartbeat: defaultHeartbeat()}, nil
}

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

// addRoot makes the root of a new view.
func (fs *FS) addRoot() error {
	fd, err := openPath(fs.nodes.mounts.fds[0], ".")
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

// connect makes the go-fuse server, which negotiates with the kernel and sends it notifications; loop serves requests.
// go-fuse reads INIT from the descriptor that it is given; the kernel sends INIT once in the life of a connection. So the
// server is given one end of a socket pair with the INIT in it, and when it has answered, the connection is put in the
// socket's place.
func (s *Session) connect(c *Config, dev *os.File, init []byte, answered func([]byte) error) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	if _, err := unix.Write(pair[0], init); err != nil {
		return fmt.Errorf("pass INIT on: %w", err)
	}
	slots, err := openRequests(c)
	if err != nil {
		return err
	}
	if err := slots.Lock(); err != nil {
		s.log.Info("the memory of requests cannot be locked (CAP_IPC_LOCK, LimitMEMLOCK=); it is touched instead", "error", err)
	}
	opts := fuseOptions(s.log, stacked(int(s.Tree.Fd())))
	opts.PanicHandler = s.FS.panicked
	_, err = fuse.NewServer(s.FS, fmt.Sprintf("/dev/fd/%d", pair[1]), opts)
	if err != nil {
		return fmt.Errorf("start FUSE server: %w", err)
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(pair[0], answer)
	if err != nil {
		return fmt.Errorf("read the server's INIT answer: %w", err)
	}
	if err := unix.Dup3(int(dev.Fd()), pair[1], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("put the FUSE connection in place: %w", err)
	}
	s.device, s.requests = pair[1], slots
	if s.loop, err = newLoop(s.FS, opts, s.device, slots, init, s.log); err != nil {
		return err
	}
	return answered(answer[:n])
}

// openRequests maps the memory that requests are read into, or makes it.
func openRequests(c *Config) (*state.Requests, error) {
	if fd, ok := c.Kept[keptRequests]; ok {
		return state.OpenRequests(os.NewFile(uintptr(fd), keptRequests))
	}
	r, err := state.CreateRequests()
	if err != nil {
		return nil, err
	}
	if err := c.Keeper.Keep(keptRequests, int(r.File().Fd())); err != nil {
		return nil, fmt.Errorf("hand the memory of requests to the keeper: %w", err)
	}
	return r, nil
}
