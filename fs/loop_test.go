// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/test/need"
)

// slow is a file system whose STATFS waits, and counts.
type slow struct {
	fuse.RawFileSystem
	entered chan uint64 // the request's number
	answer  chan fuse.Status
	calls   atomic.Int32
}

func (s *slow) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s.calls.Add(1)
	if s.entered != nil {
		s.entered <- in.Unique
	}
	select {
	case code := <-s.answer:
		out.Bsize = 4711
		return code
	case <-cancel:
		return fuse.EINTR
	}
}

// connection is a mount served by nothing but a loop.
type connection struct {
	t    *testing.T
	dir  string
	dev  *os.File
	init []byte
	fs   *slow
	mem  *state.Requests
	opts *fuse.MountOptions

	loops sync.WaitGroup
}

func connect(t *testing.T) *connection {
	t.Helper()
	need.Have(t, need.View()...)
	c := &connection{t: t, dir: t.TempDir(), fs: &slow{fuse.NewDefaultRawFileSystem(), make(chan uint64, 9), make(chan fuse.Status), atomic.Int32{}}}
	var err error
	if c.dev, err = openDevice(); err != nil {
		t.Fatal(err)
	}
	// Nobody may read from a descriptor's number when it is another test's.
	t.Cleanup(func() {
		c.loops.Wait()
		c.dev.Close()
	})
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", c.dev.Fd())
	if err := unix.Mount("test", c.dir, "fuse.test", 0, data); err != nil {
		t.Fatal(err)
	}
	// MNT_FORCE ends the connection, also where a mount namespace that was made meanwhile has a copy of the mount.
	t.Cleanup(func() {
		unix.Unmount(c.dir, unix.MNT_FORCE)
		unix.Unmount(c.dir, unix.MNT_DETACH)
	})
	if c.init, err = readInit(c.dev); err != nil {
		t.Fatal(err)
	}
	if c.mem, err = state.CreateRequests(); err != nil {
		t.Fatal(err)
	}
	c.opts = fuseOptions(slog.New(slog.DiscardHandler), false)
	answer := make([]byte, smallReply)
	n, code := fuse.NewProtocolServer(c.fs, c.opts).HandleRequest([][]byte{c.init}, [][]byte{answer})
	if !code.Ok() {
		t.Fatal(code)
	}
	if _, err := c.dev.Write(answer[:n]); err != nil {
		t.Fatal(err)
	}
	return c
}

// loop makes a worker's loop, with slots of its own mapping.
func (c *connection) loop() *loop {
	c.t.Helper()
	fd, err := unix.FcntlInt(c.mem.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	slots, err := state.OpenRequests(os.NewFile(uintptr(fd), "requests"))
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := newLoop(c.fs, c.opts, int(c.dev.Fd()), slots, c.init, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

func (c *connection) statfs() <-chan error {
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		err := unix.Statfs(c.dir, &st)
		if err == nil && st.Bsize != 4711 {
			err = fmt.Errorf("block size %d", st.Bsize)
		}
		done <- err
	}()
	return done
}

// read reads one request into a slot, and nothing more: a worker that dies then.
func (c *connection) read(l *loop) state.Slot {
	c.t.Helper()
	s := l.slots.Take()
	for {
		switch _, err := unix.Read(l.device, s.Buffer()); err {
		case nil:
			return s
		case unix.EINTR, unix.ENOENT:
		default:
			c.t.Fatal(err)
		}
	}
}

func waitFor[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing after a minute")
	}
	panic("not reached")
}

// What a worker had read when it died is answered by the next.
func TestSuccessorAnswers(t *testing.T) {
	c := connect(t)
	done := c.statfs()
	unique := c.read(c.loop()).Unique()
	next := c.loop()
	c.loops.Go(next.run)
	if got := waitFor(t, c.fs.entered); got != unique|resendBit {
		t.Errorf("request %x is handled, want %x, marked as one that may have been begun", got, unique)
	}
	for range 2 { // to ask changes nothing
		if !next.awaited(unique) {
			t.Error("the kernel waits for the answer, but is said not to")
		}
	}
	c.fs.answer <- fuse.OK
	if err := waitFor(t, done); err != nil {
		t.Error(err)
	}
	if next.awaited(unique) {
		t.Error("the kernel has the answer, but is said to wait for it")
	}
}

// What a worker had answered when it died is not done again: others may have gone by the answer since.
func TestSuccessorLeavesAnswered(t *testing.T) {
	c := connect(t)
	done := c.statfs()
	first := c.loop()
	s := c.read(first)
	before := append([]byte(nil), s.Request()...)
	go first.handle(s)
	waitFor(t, c.fs.entered)
	c.fs.answer <- fuse.OK
	if err := waitFor(t, done); err != nil {
		t.Fatal(err)
	}
	first.readers.Wait()
	// As it was right after the answer was written.
	copy(s.Buffer(), before)
	next := c.loop()
	next.finish()
	next.readers.Wait()
	if n := c.fs.calls.Load(); n != 1 {
		t.Errorf("the request was handled %d times", n)
	}
	if left := next.slots.InUse(); len(left) != 0 {
		t.Errorf("%d slots are in use", len(left))
	}
}

// A request that was interrupted while no worker was there, or before the death, ends.
func TestSuccessorInterrupts(t *testing.T) {
	c := connect(t)
	done := c.statfs()
	s := c.read(c.loop())
	s.Mark(state.Interrupted)
	next := c.loop()
	c.loops.Go(next.run)
	waitFor(t, c.fs.entered)
	if err := waitFor(t, done); err != unix.EINTR {
		t.Errorf("statfs: %v, want EINTR", err)
	}
}

// When the connection ends, so do the requests that wait for something, and the loop, which finds nothing wrong with that.
func TestLoopEnds(t *testing.T) {
	for name, end := range map[string]func(*connection) error{
		"unmounted": func(c *connection) error { return unix.Unmount(c.dir, unix.MNT_FORCE) },
		"aborted":   (*connection).abort,
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t)
			l := c.loop()
			var log bytes.Buffer
			l.log = slog.New(slog.NewTextHandler(&log, nil))
			ended := make(chan struct{})
			c.loops.Go(func() {
				l.run()
				close(ended)
			})
			done := c.statfs()
			waitFor(t, c.fs.entered)
			if err := end(c); err != nil && err != unix.EBUSY {
				t.Fatal(err)
			}
			waitFor(t, done)
			waitFor(t, ended)
			if log.Len() > 0 {
				t.Error(log.String())
			}
		})
	}
}

// There is always a reader, however many become too many at the same time.
func TestReadersStay(t *testing.T) {
	c := connect(t)
	l := c.loop()
	l.maxIdle = 1
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	raiseProcs() // as in a daemon
	close(c.fs.answer)
	c.fs.entered = nil
	ended := make(chan struct{})
	c.loops.Go(func() {
		l.run()
		close(ended)
	})
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for range 4000 {
				if err := <-c.statfs(); err != nil && err != unix.EINTR { // Go signals threads
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		callers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ended:
		t.Error("no reader is left, and the connection has not ended")
		if err := c.abort(); err != nil { // what was asked would wait for ever
			t.Fatal(err)
		}
		<-done
	}
}

// abort ends the connection as an administrator does who cannot help himself otherwise.
func (c *connection) abort() error {
	control := c.t.TempDir()
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		return err
	}
	defer unix.Unmount(control, unix.MNT_DETACH)
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); f[4] == c.dir {
			_, minor, _ := strings.Cut(f[2], ":")
			return os.WriteFile(filepath.Join(control, minor, "abort"), []byte("1"), 0)
		}
	}
	return fmt.Errorf("%s is not mounted", c.dir)
}
