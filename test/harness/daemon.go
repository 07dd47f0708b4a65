// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Daemon is a process that a test started and that runs until it is stopped or killed.
type Daemon struct {
	Name string
	Log  string // path of the file that its standard output and error go to
	cmd  *exec.Cmd
	done chan struct{}
	once sync.Once
}

// Spawn starts a daemon; the test's cleanup stops it.
func Spawn(t testing.TB, log string, args ...string) *Daemon {
	t.Helper()
	d := start(t, log, args...)
	t.Cleanup(func() { d.Stop(t) })
	return d
}

func start(t testing.TB, log string, args ...string) *Daemon {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A session of its own: what it starts is not ended by a signal to the tests' process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", args[0], err)
	}
	d := &Daemon{Name: args[0], Log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait() // the state is in cmd.ProcessState
		close(d.done)
	}()
	return d
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Alive reports whether the daemon still runs.
func (d *Daemon) Alive() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Stop ends the daemon with SIGTERM and waits for it. It may be called again.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	d.once.Do(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		Until(t, fmt.Sprintf("%s (pid %d) ends", d.Name, d.PID()), func() bool { return !d.Alive() })
	})
}

// Kill ends the daemon with SIGKILL and waits for it.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	d.once.Do(func() {})
	d.cmd.Process.Kill()
	<-d.done
}

// Logged returns what the daemon has said so far.
func (d *Daemon) Logged(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(d.Log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
