// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchKeeper notices when our own keeper dies, and starts another, which adopts this worker. Until it has, `imgward
// status` warns: the view would not survive the death of its worker. (systemd is not watched: if pid 1 dies the host
// does.)
func (w *worker) watchKeeper() {
	for !w.flags.Foreground {
		pid := int(w.keeperPID.Load())
		if err := awaitEnd(pid); err != nil {
			w.log.Warn("cannot watch the keeper", "pid", pid, "error", err)
			return
		}
		w.orphaned.Store(true)
		select {
		case <-w.leave:
			return
		default:
		}
		w.log.Error("the keeper died; starting another", "pid", pid)
		if !w.replaceKeeper() {
			return
		}
		w.orphaned.Store(false)
		w.log.Info("a new keeper holds the view", "pid", w.keeperPID.Load())
	}
}

// replaceKeeper starts a new keeper, again and again until one holds the view: what keeps it from beginning (no room in the
// runtime directory, no memory, no process) passes. It returns false when this worker leaves.
func (w *worker) replaceKeeper() bool {
	for wait := time.Second; ; wait = min(2*wait, keeperRetry) {
		err := w.newKeeper()
		if err == nil {
			return true
		}
		w.log.Error("no new keeper; without one this view does not survive the death of its daemon", "error", err, "next_try_in", wait)
		select {
		case <-w.leave:
			return false
		case <-time.After(wait):
		}
	}
}

// keeperRetry is the longest pause between two tries to start a keeper: each failure is an error in the log.
const keeperRetry = time.Minute

// renewAfter is when a worker looks at its keeper's program: not while a successor has all that had waited to do.
const renewAfter = time.Second

// renewKeeper has the keeper become this worker's program, if it runs another: after an upgrade.
func (w *worker) renewKeeper() {
	if w.flags.Foreground {
		return
	}
	time.Sleep(renewAfter)
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return
	}
	keepers, err := os.Stat(fmt.Sprintf("/proc/%d/exe", w.keeperPID.Load()))
	if err != nil || os.SameFile(own, keepers) {
		return
	}
	w.log.Info("the keeper runs another program; it is asked to become this one", "pid", w.keeperPID.Load())
	if err := w.keeper.Renew(); err != nil {
		w.log.Warn("cannot tell the keeper", "error", err)
	}
}

// awaitEnd waits for the end of a process that may be nobody's child here.
func awaitEnd(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return err
		}
	}
}

// newKeeper starts a keeper that adopts this worker, and gives it everything.
func (w *worker) newKeeper() error {
	r, starter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	args := append([]string{"keeper", "--adopt", strconv.Itoa(os.Getpid())}, w.flags.args(w.mountpoint)...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{starter}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	starter.Close()
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	answer, err := io.ReadAll(r)
	if err != nil || string(answer) != readyWord {
		return errors.Join(errors.New("the new keeper did not begin; see the log"), err)
	}
	w.keeperPID.Store(int64(cmd.Process.Pid))
	if w.logFile != nil {
		err = w.keepLog(w.logFile)
	}
	if err = errors.Join(err, w.keepControl(), w.keepAll()); err != nil {
		_ = cmd.Process.Kill() // half a keeper has the view's lock, which the next one needs
	}
	return err
}
