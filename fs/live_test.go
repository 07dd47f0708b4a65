// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/test/need"
)

// fakeGuard answers as a test wants it to.
type fakeGuard struct {
	mu    sync.Mutex
	inUse map[guard.ID][]guard.Use
	check func(*guard.Request) guard.Verdict
}

// answer changes what it says.
func (g *fakeGuard) answer(inUse map[guard.ID][]guard.Use, check func(*guard.Request) guard.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inUse, g.check = inUse, check
}

func (g *fakeGuard) used() map[guard.ID][]guard.Use {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inUse
}

func (g *fakeGuard) Check(_ context.Context, r *guard.Request) guard.Verdict {
	g.mu.Lock()
	check := g.check
	g.mu.Unlock()
	if check != nil {
		return check(r)
	}
	return guard.Verdict{Allowed: true}
}
func (*fakeGuard) Refused(*guard.Request, *guard.Verdict) {}
func (*fakeGuard) TakesLocks(int, uint32)                 {}

func (*fakeGuard) Classify(tid int, uid uint32) guard.Process {
	return guard.Process{PID: tid, UID: uid}
}
func (g *fakeGuard) Who(_ context.Context, r *guard.Request) []guard.Use     { return g.used()[r.Image] }
func (g *fakeGuard) InUse(context.Context) map[guard.ID][]guard.Use          { return g.used() }
func (*fakeGuard) Ruled(context.Context) func(path string, id guard.ID) bool { return nil }

// live is a mounted view that this very process serves.
type live struct {
	*Session
	dir, backing string
	guard        *fakeGuard
}

// newLive mounts one. configure changes it before it serves.
func newLive(t *testing.T, configure ...func(*live)) *live {
	t.Helper()
	need.Have(t, need.View()...)
	dir, err := os.MkdirTemp("/var/tmp", "imgward-live-") // not below /tmp, which may be a file system without handles
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &live{dir: filepath.Join(dir, "view"), backing: filepath.Join(dir, "backing"), guard: &fakeGuard{}}
	for _, d := range []string{l.dir, l.backing} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.Session, err = Start(t.Context(), &Config{
		Options:  Options{Mountpoint: l.dir, Backing: l.backing, Passthrough: true},
		Log:      slog.New(slog.DiscardHandler),
		Keeper:   shelf{},
		NewGuard: func(guard.Host) (guard.Checker, error) { return l.guard, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range configure {
		change(l)
	}
	go l.Serve(time.Time{})
	t.Cleanup(func() {
		for end := time.Now().Add(20 * time.Second); unix.Unmount(l.dir, 0) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the view cannot be unmounted")
				unix.Unmount(l.dir, unix.MNT_DETACH|unix.MNT_FORCE)
				return
			}
		}
	})
	l.poll(t)
	return l
}

// poll has the kernel ask this view once, and never again, whether it can poll files. It asks when Go adds the first file
// of a view to its epoll set, in a call for which the runtime gives up no processor: a view that this process serves then
// waits for itself for ever, as soon as the garbage collector has stopped the others.
func (l *live) poll(t *testing.T) {
	t.Helper()
	name := l.path("polled")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	if err := unix.Unlink(name); err != nil {
		t.Error(err)
	}
}

func (l *live) path(name string) string { return filepath.Join(l.dir, name) }

func (l *live) write(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(l.path(name), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inTime fails the test if f takes longer than anything may that waits for nobody.
func inTime(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s waits", what)
	}
}
