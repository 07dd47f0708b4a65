package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DiedEnv tells a successor when its predecessor ended, in nanoseconds since 1970.
const DiedEnv = "IMGWARD_DIED"

// Keeper keeps descriptors, starts the worker, and starts it again when it dies. It reads no FUSE requests and no files;
// what it does is what must not fail.
type Keeper struct {
	Log *slog.Logger
	// Binary is the program to start, by path, so that a successor may be a newer one. Args are its arguments.
	Binary string
	Args   []string
	// Socket is where the worker's messages come: a path in a directory that only root can enter.
	Socket string
	// Ready is called at the worker's first READY=1, or when an adopted worker can send its descriptors.
	Ready func()
	// Adopt is the pid of a worker that serves already and has lost its keeper; 0: start one.
	Adopt int

	conn     int
	names    []string // in the order of arrival
	files    map[string]*os.File
	ready    bool     // a worker has served
	served   bool     // the present worker has served
	leaving  bool     // the present worker ends to make room for the next
	good     *os.File // the program of the last worker that served
	fallback bool     // the next worker is to be that one
	stopping bool
	pid      int // of the present worker
}

// How long to wait before the next worker: not at all after one that served, however briefly; longer and longer after
// one that could not even begin. It never gives up: as long as the connection is held, VMs wait instead of failing.
const (
	pauseMin = 10 * time.Millisecond
	pauseMax = 5 * time.Second
)

// ErrNeverReady says that the first worker ended before it served.
var ErrNeverReady = errors.New("the worker ended before it served")

// Run starts the worker and returns when the view has ended. ErrNeverReady, with the worker's exit status, if it never
// began.
func (k *Keeper) Run() error {
	if err := k.listen(); err != nil {
		return err
	}
	defer unix.Close(k.conn)
	defer os.Remove(k.Socket)
	k.files = map[string]*os.File{}
	pause, died := time.Duration(0), time.Time{}
	for {
		began := time.Now()
		k.served = false
		err := k.run(died)
		died = time.Now()
		switch {
		case k.stopping && err == nil:
			k.Log.Info("the view has ended")
			return nil
		case !k.ready:
			return errors.Join(ErrNeverReady, err)
		case len(k.names) == 0:
			// An adopted worker died before it could hand anything over. The connection went with it.
			return errors.Join(errors.New("the worker died and left nothing to go on with"), err)
		}
		k.next(err, died.Sub(began))
		if k.served {
			pause = 0
			continue
		}
		time.Sleep(pause)
		pause = min(max(2*pause, pauseMin), pauseMax)
	}
}

// run runs one worker to its end; the first may be one that runs already.
func (k *Keeper) run(died time.Time) error {
	if k.Adopt == 0 {
		return k.generation(died)
	}
	err := k.adopted()
	k.Adopt = 0
	return err
}

// next makes ready for another worker.
func (k *Keeper) next(err error, lived time.Duration) {
	switch {
	case k.leaving && k.served:
		k.Log.Info("the worker has handed over", "after", lived, "to", k.Binary)
	case !k.served && k.good != nil && !k.fallback:
		k.Log.Error("the program does not serve; going back to the one that did", "program", k.Binary, "status", fmt.Sprint(err))
		k.fallback = true
	case !k.served:
		k.Log.Error("no worker can serve; trying again", "program", k.Binary, "status", fmt.Sprint(err))
		k.fallback = false
	default:
		k.Log.Warn("the worker died; starting its successor", "status", fmt.Sprint(err), "after", lived)
	}
	k.stopping, k.leaving = false, false
}

func (k *Keeper) listen() error {
	_ = os.Remove(k.Socket)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: k.Socket}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("bind %s: %w", k.Socket, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(fd)
		return fmt.Errorf("SO_PASSCRED: %w", err)
	}
	k.conn = fd
	return os.Chmod(k.Socket, 0o600)
}

// generation runs one worker to its end.
func (k *Keeper) generation(died time.Time) error {
	cmd := exec.Command(k.program(), k.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(withoutListen(os.Environ()), "NOTIFY_SOCKET="+k.Socket, memoryEnv)
	if len(k.names) > 0 {
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(k.names)), "LISTEN_FDNAMES="+strings.Join(k.names, ":"))
		for _, name := range k.names {
			cmd.ExtraFiles = append(cmd.ExtraFiles, k.files[name])
		}
	}
	if !died.IsZero() {
		cmd.Env = append(cmd.Env, DiedEnv+"="+strconv.FormatInt(died.UnixNano(), 10))
	}
	// A worker is a session of its own: a signal from a terminal is for whoever asked for the view, not for it.
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", k.Binary, err)
	}
	k.pid = cmd.Process.Pid
	defer unix.Close(pidfd)
	if err := k.watch(pidfd); err != nil {
		return err
	}
	err := cmd.Wait()
	k.drain() // what it sent before it died is in the socket still
	return err
}

// memoryEnv has a worker give memory back although it is locked (see viewfs: lockMemory).
const memoryEnv = "GODEBUG=harddecommit=1"

// adopted watches a worker that another keeper started, and that has outlived it.
func (k *Keeper) adopted() error {
	pidfd, err := unix.PidfdOpen(k.Adopt, 0)
	if err != nil {
		return fmt.Errorf("watch worker %d: %w", k.Adopt, err)
	}
	defer unix.Close(pidfd)
	k.pid, k.ready, k.served = k.Adopt, true, true
	k.remember()
	k.Ready()
	if err := k.watch(pidfd); err != nil {
		return err
	}
	k.drain()
	if !k.stopping {
		return errors.New("its status is not known: another keeper had started it")
	}
	return nil
}

// watch takes in a worker's messages until it ends.
func (k *Keeper) watch(pidfd int) error {
	for {
		poll := []unix.PollFd{{Fd: int32(k.conn), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the worker: %w", err)
		}
		if poll[1].Revents != 0 {
			return nil
		}
		k.drain()
	}
}

// program is what to run: by path, so that it may be a newer one, or the very file that served before.
func (k *Keeper) program() string {
	if k.fallback && k.good != nil {
		return "/proc/self/fd/" + strconv.Itoa(int(k.good.Fd()))
	}
	return k.Binary
}

// remember holds on to the file of a worker that serves: its path may lead to another tomorrow, that does not.
func (k *Keeper) remember() {
	f, err := os.Open("/proc/" + strconv.Itoa(k.pid) + "/exe")
	if err != nil {
		return
	}
	if k.good != nil {
		k.good.Close()
	}
	k.good = f
}

func withoutListen(env []string) []string {
	return slices.DeleteFunc(env, func(s string) bool {
		return strings.HasPrefix(s, "LISTEN_") || strings.HasPrefix(s, "NOTIFY_SOCKET=") || strings.HasPrefix(s, DiedEnv+"=")
	})
}

// drain takes in all messages that have arrived.
func (k *Keeper) drain() {
	for {
		msg, fds, err := receive(k.conn)
		if err != nil {
			return
		}
		k.handle(msg, fds)
	}
}

// receive reads one message and the descriptors in it; a message that is not from root is dropped.
func receive(conn int) (msg string, fds []int, err error) {
	buf, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return "", nil, err
	}
	trusted := false
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return "", nil, nil
	}
	for i := range list {
		if cred, err := unix.ParseUnixCredentials(&list[i]); err == nil {
			trusted = cred.Uid == 0
		} else if rights, err := unix.ParseUnixRights(&list[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	if !trusted {
		closeAll(fds)
		return "", nil, nil
	}
	return string(buf[:n]), fds, nil
}

func (k *Keeper) handle(msg string, fds []int) {
	vars := map[string]string{}
	for _, line := range strings.Split(msg, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	name := vars["FDNAME"]
	switch {
	case vars["FDSTORE"] == "1" && len(fds) == 1 && name != "" && !strings.Contains(name, ":"):
		k.keep(name, fds[0])
		fds = nil
	case vars["FDSTOREREMOVE"] == "1":
		k.drop(name)
	}
	closeAll(fds)
	if vars["READY"] == "1" {
		k.served = true
		k.remember()
		if !k.ready {
			k.ready = true
			k.Ready()
		}
	}
	if vars["STOPPING"] == "1" {
		k.stopping = true
	}
	if vars[leavingVar] == "1" {
		k.leaving = true
	}
	if binary := vars[binaryVar]; binary != "" {
		k.Binary, k.fallback = binary, false
	}
}

// Messages of our own, which systemd ignores: the worker ends so that a successor can start, and the successor is to be
// this program.
const (
	leavingVar = "X_IMGWARD_LEAVING"
	binaryVar  = "X_IMGWARD_BINARY"
)

// Leave tells the keeper that the worker is about to end, and that its successor is to be another program (empty: the
// same).
func (c *Client) Leave(binary string) error {
	return c.Notify(leavingVar+"=1", binaryVar+"="+binary)
}

func (k *Keeper) keep(name string, fd int) {
	k.drop(name)
	k.files[name] = os.NewFile(uintptr(fd), name)
	k.names = append(k.names, name)
}

func (k *Keeper) drop(name string) {
	f := k.files[name]
	if f == nil {
		return
	}
	f.Close()
	delete(k.files, name)
	k.names = slices.DeleteFunc(k.names, func(s string) bool { return s == name })
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Served says whether a worker ever served.
func (k *Keeper) Served() bool { return k.ready }
