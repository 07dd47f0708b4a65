package viewfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// Names under which the keeper holds a session's descriptors, besides those of handles, locks and mounts.
const (
	keptDevice = "fuse"    // the FUSE connection
	keptTree   = "backing" // the root of the backing tree
	keptState  = "state"   // the state memory
)

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

// Session is a view being served.
type Session struct {
	FS   *FS
	Dev  uint64 // st_dev of the view
	Tree *os.File
	srv  *fuse.Server
	log  *slog.Logger

	mountpoint string
	device     int // the FUSE connection; the server's descriptor
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
	return &Session{FS: fs, Dev: region.Device(), Tree: tree, log: c.Log, mountpoint: c.Mountpoint}, nil
}

// connect makes the go-fuse server. go-fuse reads INIT from the descriptor that it is given; the kernel sends INIT once
// in the life of a connection. So the server is given one end of a socket pair with the INIT in it, and when it has
// answered, the connection is put in the socket's place.
func (s *Session) connect(c *Config, dev *os.File, init []byte, answered func([]byte) error) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	if _, err := unix.Write(pair[0], init); err != nil {
		return fmt.Errorf("pass INIT on: %w", err)
	}
	lockMemory(s.log)
	opts := fuseOptions(s.log, stacked(int(s.Tree.Fd())))
	opts.PanicHandler = s.FS.panicked
	srv, err := fuse.NewServer(s.FS, fmt.Sprintf("/dev/fd/%d", pair[1]), opts)
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
	s.srv, s.device = srv, pair[1]
	return answered(answer[:n])
}

// Serve answers requests until the view is unmounted.
func (s *Session) Serve(died time.Time) {
	pause := s.FS.region.BeginServing(time.Now(), died)
	if g := s.FS.region.Generation(); g > 1 {
		s.log.Info("serving again", "generation", g, "pause", pause)
	}
	go s.FS.ensureAll()
	go s.FS.reconcile(s.FS.ctx)
	s.srv.Serve()
}

// Ping asks the view itself for something, through the kernel and back. ENOTCONN, ECONNABORTED: the connection is gone.
func (s *Session) Ping() error {
	var st unix.Statfs_t
	return unix.Statfs(procPath(s.FS.host.root)+s.mountpoint, &st)
}

// readInit reads the kernel's first request.
func readInit(dev *os.File) ([]byte, error) {
	buf := make([]byte, maxRequest+4096)
	n, err := retryEINTR(func() (int, error) { return unix.Read(int(dev.Fd()), buf) })
	if err != nil {
		return nil, fmt.Errorf("read INIT from the kernel: %w", err)
	}
	return buf[:n], nil
}

// stacked says whether the backing tree is on a file system that is stacked on another, such as an overlay: then the
// kernel has to be told to allow for one more (and nothing can be stacked on the view).
func stacked(tree int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(tree, &st) == nil && (st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.ECRYPTFS_SUPER_MAGIC)
}

// isRemote says whether a file system reports write errors at close(2), as network file systems do.
func isRemote(tree int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(tree, &st) != nil {
		return true
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return false
	}
	return true
}

// RaiseFileLimit lets this process, and what it starts, have as many descriptors as the kernel allows: what a client
// opens, the daemon opens too.
func RaiseFileLimit(log *slog.Logger) uint64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	most := lim.Max
	if b, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		fmt.Sscan(string(b), &most)
	}
	want := unix.Rlimit{Cur: most, Max: most}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		want = unix.Rlimit{Cur: lim.Max, Max: lim.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
			log.Warn("cannot raise the limit of open files", "limit", lim.Cur, "error", err)
			return lim.Cur
		}
	}
	return want.Cur
}

// State is the memory that a successor will read.
func (s *Session) State() *os.File { return s.FS.region.File() }

// End unmounts the view, if nobody holds files through it. EBUSY: somebody does, or the view was mounted outside of this
// process's mount namespace, whence it has to be unmounted. The mount is told by its device, not by its path alone: what
// stands there by now may be a successor's.
func (s *Session) End() error {
	if s.FS.host.prepared {
		if _, mounted := s.FS.host.viewAt(s.mountpoint); mounted {
			return unix.EBUSY
		}
		return nil
	}
	m, err := MountAt(s.mountpoint)
	if err != nil {
		return err
	}
	if m == nil || Device(m) != s.Dev {
		return nil
	}
	return unix.Unmount(s.mountpoint, 0)
}
