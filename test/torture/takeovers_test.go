// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
)

var takeovers = flag.Int("torture.takeovers", 0, "take-overs in TestTakeovers (0: 300 under make test-all, else 60)")

// TestTakeovers kills a worker hundreds of times, by default, beside clients that make, link, lock, rename and remove
// files: none of them notices, nothing accumulates in worker or keeper, and in the end the kernel's and the view's ideas
// of what is known agree.
func TestTakeovers(t *testing.T) {
	count := *takeovers
	if count == 0 {
		count = 60
		if need.All() {
			count = 300
		}
	}
	both(t, func(t *testing.T, opts ...string) {
		h := harness.NewFiles(t)
		v := h.Mount(t, opts...)
		v.Expected = []string{"the worker died"}
		held := hold(t, v)
		stop, done := make(chan struct{}), make(chan error, 2)
		for i := range cap(done) {
			go func() { done <- client(filepath.Join(v.Dir, "client"+string(rune('0'+i))), stop) }()
		}
		var first usage
		begin := v.Status(t).Generation
		for i := range count {
			killOne(t, v)
			if i == min(count/3, 100) {
				first = use(t, v)
			}
		}
		close(stop)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		last := use(t, v)
		t.Logf("%d take-overs; early %+v, at the end %+v", v.Status(t).Generation-begin, first, last)
		if last.workerFDs > first.workerFDs+50 || last.keeperFDs > first.keeperFDs+10 {
			t.Error("descriptors grow")
		}
		if last.keeperKiB > first.keeperKiB+2048 || last.workerKiB > first.workerKiB+16<<10 {
			t.Error("memory grows")
		}
		held.check(t)
		agree(t, v)
	})
}

// killOne kills the worker, after a time in which there may be a standby or not.
func killOne(t *testing.T, v *harness.View) {
	t.Helper()
	pid, err := workerPID(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if rand.IntN(4) == 0 {
		time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond))))
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The kernel keeps no negative answers of ours: this one comes from the successor.
	if _, err := os.Lstat(filepath.Join(v.Dir, "absent")); !os.IsNotExist(err) {
		t.Fatalf("after a kill: %v, want ENOENT", err)
	}
}

// client does what must not be done twice, until it is stopped, and says what went otherwise than without kills.
func client(dir string, stop chan struct{}) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	name := func(s string) string { return filepath.Join(dir, s) }
	steps := []func() error{
		func() error { return os.WriteFile(name("a"), []byte("content"), 0o644) },
		func() error { return os.Link(name("a"), name("b")) },
		func() error { return os.Symlink("a", name("c")) },
		func() error { return os.Rename(name("b"), name("d")) },
		func() error { return os.Mkdir(name("e"), 0o755) },
		func() error { return unix.Setxattr(name("a"), "user.x", []byte("1"), unix.XATTR_CREATE) },
		func() error { return unix.Removexattr(name("a"), "user.x") },
		func() error { return appendLines(name("log")) },
		func() error { return os.Truncate(name("a"), 3) },
		func() error { return holdsOnly(name("a"), "con") },
		func() error { return holdsOnly(name("log"), "one\ntwo\nthree\n") },
		func() error { return lockAndUnlock(name("a")) },
		func() error { return os.WriteFile(name("a"), []byte("again"), 0o644) },
		func() error { return holdsOnly(name("d"), "again") },
	}
	for {
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		for _, s := range []string{"a", "c", "d", "e", "log"} {
			if err := os.Remove(name(s)); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return os.Remove(dir)
		default:
		}
	}
}

func appendLines(path string) error {
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.WriteString(line); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func holdsOnly(path, want string) error {
	b, err := os.ReadFile(path)
	if err == nil && string(b) != want {
		return &os.PathError{Op: "compare", Path: path, Err: errorString("it holds " + string(b))}
	}
	return err
}

type errorString string

func (e errorString) Error() string { return string(e) }

func lockAndUnlock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, typ := range []int16{unix.F_WRLCK, unix.F_UNLCK} {
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: typ}); err != nil {
			return err
		}
	}
	return nil
}

// agree waits until the view knows no more than its root: the kernel has been told to forget, and what a worker counted
// without living to answer is found by comparing.
func agree(t *testing.T, v *harness.View) {
	t.Helper()
	harness.Until(t, "the node table is empty", func() bool {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		s := v.Status(t)
		return s.Nodes == 1 && s.Handles == 0
	})
}
