// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process of the keeper's: the worker, or one that waits to be.
type child struct {
	pid     int
	pidfd   int
	end     int         // our end of the socket pair to it; -1: it has none
	process *os.Process // nil: another keeper's child
	after   string      // what the keeper called its program
	program *os.File    // which that was, if it could be had: its path may lead to another tomorrow, that does not serve
}

// spawn starts a process that waits for its orders at the other end of a socket pair.
func (k *Keeper) spawn(program string) (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "orders")
	defer theirs.Close()
	c, err := k.exec(program, theirs)
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	c.end = pair[0]
	return c, nil
}

func (k *Keeper) exec(program string, orders *os.File) (*child, error) {
	c := &child{pidfd: -1, end: -1, after: program}
	cmd := exec.Command(program, k.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(withoutOrders(os.Environ()), "NOTIFY_SOCKET="+k.Socket, ordersEnv+"="+strconv.Itoa(firstFd))
	cmd.ExtraFiles = []*os.File{orders}
	// A worker is a session of its own: a signal from a terminal is for whoever asked for the view, not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &c.pidfd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	c.process, c.pid = cmd.Process, cmd.Process.Pid
	c.open()
	return c, nil
}

func withoutOrders(env []string) []string {
	return slices.DeleteFunc(env, func(s string) bool {
		return strings.HasPrefix(s, "LISTEN_") || strings.HasPrefix(s, "NOTIFY_SOCKET=") || strings.HasPrefix(s, ordersEnv+"=")
	})
}

// adopt is a worker that another keeper started, and that has outlived it.
func adopt(pid int) (*child, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch worker %d: %w", pid, err)
	}
	c := &child{pid: pid, pidfd: pidfd, end: -1}
	c.open()
	return c, nil
}

// open holds on to the file that a process runs. That is done while it certainly runs: one that has just ended has none.
func (c *child) open() { c.program, _ = os.Open(fmt.Sprintf("/proc/%d/exe", c.pid)) }

var errNotOurs = errors.New("its status is not known: another keeper had started it")

// wait waits for the end of a process, and says how it ended. One that was adopted is nobody's to ask.
func (c *child) wait() error {
	var err error
	if c.process != nil {
		var state *os.ProcessState
		if state, err = c.process.Wait(); err == nil && !state.Success() {
			err = &exec.ExitError{ProcessState: state}
		}
	}
	if c.program != nil {
		c.program.Close()
	}
	unix.Close(c.pidfd)
	if c.end >= 0 {
		unix.Close(c.end)
	}
	return err
}

func (c *child) adopted() bool { return c.process == nil }

// socket is what to poll for word of a process that waits; -1, which poll(2) passes over, if there is none.
func (c *child) socket() int32 {
	if c == nil {
		return -1
	}
	return int32(c.end)
}

// discard ends a process that waits.
func (k *Keeper) discard(c *child) {
	if c != nil {
		_ = c.process.Kill()
		_ = c.wait()
	}
}

// handOver gives a waiting process all that the keeper has, and with that the word to serve.
func (k *Keeper) handOver(c *child, died time.Time) error {
	first := fmt.Sprintf("%s %d %d", orderServe, len(k.names), nanoseconds(died))
	if err := order(c.end, first, nil); err != nil {
		return err
	}
	for names := range slices.Chunk(k.names, maxRights) {
		fds := make([]int, len(names))
		for i, name := range names {
			fds[i] = int(k.files[name].Fd())
		}
		if err := order(c.end, strings.Join(names, ":"), fds); err != nil {
			return err
		}
	}
	return nil
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
