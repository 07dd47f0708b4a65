// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is a running peer.
type Mount struct {
	Peer    Peer
	Dir     string // the mount point
	Backing string
	cmd     *exec.Cmd
	log     logBuffer
	exited  chan error
}

// Start mounts backing at dir and returns when it serves.
func (p Peer) Start(tools, backing, dir string) (*Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	words := p.Command(tools, backing, dir)
	m := &Mount{Peer: p, Dir: dir, Backing: backing, exited: make(chan error, 1)}
	m.cmd = exec.Command(words[0], words[1:]...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	// A mount must not outlive a test that crashed. Pdeathsig works on the thread that forks; the Go runtime ends no
	// thread that was not locked.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	go func() { m.exited <- m.cmd.Wait() }()
	return m, m.waitReady()
}

func (m *Mount) waitReady() error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		select {
		case err := <-m.exited:
			return fmt.Errorf("%s ended before it served %s: %v\n%s", m.Peer.Name, m.Dir, err, m.log.String())
		default:
		}
		if _, mounted := connection(m.Dir); mounted {
			// It is mounted, but may not have answered INIT: this waits until it has.
			_, err := os.ReadDir(m.Dir)
			return wrap(err, m.Peer.Name)
		}
		if time.Now().After(deadline) {
			m.cmd.Process.Kill()
			return fmt.Errorf("%s has not mounted %s in a minute\n%s", m.Peer.Name, m.Dir, m.log.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Log is what the daemon has printed so far.
func (m *Mount) Log() string { return m.log.String() }

// Close unmounts and waits for the daemon's end. When that takes too long, the connection is aborted.
func (m *Mount) Close() error {
	err := unmount(m.Dir)
	if err != nil {
		err = errors.Join(err, m.Abort(), unix.Unmount(m.Dir, unix.MNT_DETACH))
	}
	select {
	case <-m.exited:
		return err
	case <-time.After(60 * time.Second):
	}
	pids := m.Processes()
	// A Go daemon answers SIGQUIT with what all its goroutines wait for.
	signalAll(pids, unix.SIGQUIT)
	time.Sleep(200 * time.Millisecond)
	signalAll(pids, unix.SIGKILL)
	return errors.Join(err, fmt.Errorf("%s did not end after its unmount\n%s", m.Peer.Name, m.log.String()))
}

func signalAll(pids []int, sig unix.Signal) {
	for _, pid := range pids {
		unix.Kill(pid, sig)
	}
}

// Abort makes every request that waits for the daemon fail with ECONNABORTED, so that a hung test comes free.
func (m *Mount) Abort() error {
	id, mounted := connection(m.Dir)
	if !mounted {
		return nil
	}
	const control = "/sys/fs/fuse/connections"
	abort := filepath.Join(control, id, "abort")
	if _, err := os.Stat(abort); err != nil {
		if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
			return wrap(err, "mount fusectl")
		}
	}
	return os.WriteFile(abort, []byte("1"), 0o200)
}

// connection finds the FUSE mount at dir: its id is the minor device number.
func connection(dir string) (id string, mounted bool) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false
	}
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[4] != dir {
			continue
		}
		_, after, _ := strings.Cut(line, " - ")
		_, minor, _ := strings.Cut(fields[2], ":")
		if strings.HasPrefix(after, "fuse") {
			return minor, true
		}
	}
	return "", false
}

// logBuffer collects output from a process while others read it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
