// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper keeps descriptors, starts the worker, and starts it again when it dies. It reads no FUSE requests and no files;
// what it does is what must not fail.
//
// Beside the worker that serves it has a standby: a second process of the same program, started and waiting, which is
// given the descriptors when the first one dies. So a take-over takes no start of a program.
type Keeper struct {
	Log *slog.Logger
	// Binary is the program to start, by path, so that a successor may be a newer one. Args are its arguments.
	Binary string
	Args   []string
	// Socket is where the worker's messages come: a path in a directory that only root can enter.
	Socket string
	// Ready is called at the worker's first READY=1, or when an adopted worker can send its descriptors.
	Ready func()
	// Kept is told of each descriptor that the worker sends, which stays the keeper's; nil: nobody is.
	Kept func(name string, f *os.File)
	// Adopt is the pid of a worker that serves already and has lost its keeper; 0: start one.
	Adopt int
	// Resume is what this process held as another program, before it executed this one (see ReadSnapshot); nil: nothing.
	Resume *Snapshot
	// Self returns the arguments with which this program goes on as the keeper, given the descriptor to be passed to
	// ReadSnapshot; nil: the keeper never becomes another program.
	Self func(snapshot int) []string
	// NoStandby saves the memory of the standby; a take-over then includes the start of a program.
	NoStandby bool
	// Pulse reads from the state memory a number that the worker that serves has grow, twice a second or more; nil: nobody looks.
	Pulse func(state *os.File) uint64
	// Patience is how long a successor may take to begin (0: 30 s), Grace how long the worker may show no pulse (0: 8 s).
	Patience, Grace time.Duration

	asked atomic.Pointer[request] // the last signal that was passed on

	conn  int
	buf   buffers
	names []string // in the order of arrival
	files map[string]*os.File

	worker    *child
	pid       atomic.Int64 // the worker's
	standby   *child       // nil until there is one
	standbyAt time.Time    // when to start one, if there is none
	candidate *candidate
	pulse     pulse // of the worker

	ready    bool     // a worker has served
	served   bool     // the present worker has served
	leaving  bool     // the present worker ends to make room for the next
	good     *os.File // the program of the last worker that served
	fallback bool     // the next worker is to be that one
	stopping bool
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
	k.files = map[string]*os.File{}
	defer k.passOn()()
	if k.Resume != nil {
		k.resume(k.Resume)
	} else if err := k.listen(); err != nil {
		return err
	}
	defer unix.Close(k.conn)
	defer func() { _ = os.Remove(k.Socket) }() // the next one replaces it
	if k.Resume == nil {
		if err := k.begin(); err != nil {
			return errors.Join(ErrNeverReady, err)
		}
	}
	defer k.dismiss()
	pause := time.Duration(0)
	for {
		began := time.Now()
		k.watch()
		k.pid.Store(0) // signals wait for the next
		died := time.Now()
		k.drain() // what it sent before it died is in the socket still
		var next *child
		if k.served && !k.stopping && len(k.names) > 0 {
			next, _ = k.successor(died) // at once; what there is to say is said afterwards
		}
		status := k.worker.wait()
		if k.worker.adopted() && !k.stopping {
			status = errNotOurs
		}
		switch {
		case k.stopping && status == nil:
			k.Log.Info("the view has ended")
			return nil
		case !k.ready:
			return errors.Join(ErrNeverReady, status)
		case len(k.names) == 0:
			// An adopted worker died before it could hand anything over. The connection went with it.
			return errors.Join(errors.New("the worker died and left nothing to go on with"), status)
		}
		if k.served {
			pause = 0
		}
		if k.leaving {
			k.asked.Store(nil) // it has had every signal
		}
		k.report(status, died.Sub(began))
		k.stopping, k.leaving, k.served = false, false, false
		for next == nil {
			time.Sleep(pause)
			pause = min(max(2*pause, pauseMin), pauseMax)
			var err error
			if next, err = k.successor(died); err != nil {
				k.report(err, 0)
			}
		}
		k.take(next)
	}
}

// take makes a process the worker.
func (k *Keeper) take(c *child) {
	k.worker = c
	k.newPulse()
	if !k.ready {
		k.pid.Store(int64(c.pid)) // a view that has not begun is ended by a signal
	}
}

// passOn has signals that ask for the view's end, or for its policy to be read again, go to the worker: a keeper that
// ended by them would only be replaced.
func (k *Keeper) passOn() (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		for s := range c {
			if s == unix.SIGINT {
				s = unix.SIGTERM
			}
			k.asked.Store(&request{s.(unix.Signal), time.Now()})
			if pid := int(k.pid.Load()); pid != 0 {
				_ = unix.Kill(pid, s.(unix.Signal))
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

// request is a signal and when it came.
type request struct {
	signal unix.Signal
	at     time.Time
}

// requestLasts is how long a signal is kept for a successor: the worker that it went to may have been dead already.
const requestLasts = 10 * time.Second

// pass has signals go to the present worker, which serves, beginning with one that its predecessor may have missed.
func (k *Keeper) pass() {
	k.pid.Store(int64(k.worker.pid))
	if r := k.asked.Swap(nil); r != nil && time.Since(r.at) < requestLasts {
		_ = unix.Kill(k.worker.pid, r.signal)
	}
}

// begin starts the first worker, or takes in one that runs already.
func (k *Keeper) begin() error {
	first := func() (*child, error) { return k.successor(time.Time{}) }
	if k.Adopt != 0 {
		first = func() (*child, error) { return adopt(k.Adopt) }
	}
	c, err := first()
	if err != nil {
		return err
	}
	k.take(c)
	if k.Adopt == 0 {
		return nil
	}
	k.ready = true
	k.serves()
	k.Ready()
	return nil
}

// serves is called when the present worker serves.
func (k *Keeper) serves() {
	k.served = true
	k.remember()
	k.standbyAt = pastStandby()
}

// report says what became of a worker, and chooses the program for the next.
func (k *Keeper) report(status error, lived time.Duration) {
	switch {
	case k.leaving && k.served:
		k.Log.Info("the worker has handed over", "after", lived, "to", k.Binary)
	case !k.served && k.good != nil && !k.fallback:
		k.Log.Error("the program does not serve; going back to the one that did", "program", k.Binary, "status", fmt.Sprint(status))
		k.fallback = true
	case !k.served:
		k.Log.Error("no worker can serve; trying again", "program", k.Binary, "status", fmt.Sprint(status))
		k.fallback = false
	default:
		k.Log.Warn("the worker died; its successor takes over", "status", fmt.Sprint(status), "after", lived)
	}
}

// watch takes in messages until the worker ends. Its end of the socket pair closes with its first descriptors, when
// none of its threads is in a system call any more; the process is gone only when it has closed all of them, which may
// be a hundred thousand.
func (k *Keeper) watch() {
	for {
		if k.served && k.pid.Load() == 0 {
			k.pass()
		}
		poll := []unix.PollFd{
			{Fd: int32(k.conn), Events: unix.POLLIN},
			{Fd: int32(k.worker.pidfd), Events: unix.POLLIN},
			{Fd: int32(k.worker.end), Events: unix.POLLRDHUP},
			{Fd: k.standby.socket(), Events: unix.POLLRDHUP},
			{Fd: k.candidate.socket(), Events: unix.POLLIN | unix.POLLRDHUP},
		}
		if _, err := unix.Poll(poll, k.timeout()); err != nil && err != unix.EINTR {
			k.Log.Error("cannot wait for messages", "error", err)
			time.Sleep(pauseMin)
			continue
		}
		if poll[1].Revents != 0 || poll[2].Revents != 0 {
			return
		}
		k.drain()
		if poll[3].Revents != 0 {
			k.lostStandby()
		}
		if poll[4].Revents != 0 {
			k.heard()
		}
		k.tend()
	}
}

// remember holds on to the program of a worker that serves.
func (k *Keeper) remember() {
	if k.worker.program == nil {
		return
	}
	if k.good != nil {
		k.good.Close()
	}
	k.good, k.worker.program = k.worker.program, nil
}

// program is what to run: by path, so that it may be a newer one, or the very file that served before. That is named as this
// process's, not the caller's: between fork(2) and execve(2) Go puts other files above those that a child is given, and
// may do so in the place of this one.
func (k *Keeper) program() string {
	if k.fallback && k.good != nil {
		return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), k.good.Fd())
	}
	return k.Binary
}

// Served says whether a worker ever served.
func (k *Keeper) Served() bool { return k.ready }
