// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// View is a mounted view, or, natively, nothing over the same directory.
type View struct {
	Dir string
	// Expected are parts of warnings that a test provokes; any other warning in the daemon's log fails it.
	Expected []string

	host  *Host
	log   string
	first Status // when it began to serve
	fds   int    // that the first worker had open then
	ended bool
}

// Imgward returns the path of the command under test.
func Imgward() string { return filepath.Join(os.Getenv(rootEnv), imgwardBin) }

// Imgcp returns the path of the copy command under test.
func Imgcp() string { return filepath.Join(os.Getenv(rootEnv), imgcpBin) }

// Mount puts a view over the host's directory of images: `imgward mount` returns when it serves. opts go before the
// directory. The cleanup ends it, and fails the test if the daemon logged a warning or kept descriptors.
func (h *Host) Mount(t testing.TB, opts ...string) *View {
	t.Helper()
	h.views++
	v := &View{host: h, Dir: h.Images, log: filepath.Join(h.Dir, "imgward"+itoa(h.views)+".log")}
	if Native() {
		return v
	}
	args := append([]string{Imgward(), "mount", "--log", v.log}, opts...)
	h.Exec(t, append(args, h.Images)...).OK(t)
	v.first = v.Status(t)
	v.fds = v.openFDs(t, v.first.PID)
	t.Cleanup(func() { v.End(t) })
	return v
}

// End unmounts the view and checks the daemon's conduct: no descriptor kept, no warning logged, no process left. It may be
// called again.
func (v *View) End(t testing.TB) {
	t.Helper()
	if v.ended || Native() {
		return
	}
	v.ended = true
	last := v.Status(t)
	v.checkFDs(t, last.PID)
	v.host.Exec(t, Imgward(), "umount", v.Dir).OK(t)
	if v.host.root == "" && mounted(t, v.Dir) {
		t.Errorf("%s is still mounted after umount", v.Dir)
	}
	for _, pid := range []int{last.PID, last.KeeperPID} {
		v.gone(t, pid)
	}
	v.checkLog(t)
}

// checkLog fails the test if the daemon warned of anything but refusals and what the test expects.
func (v *View) checkLog(t testing.TB) {
	t.Helper()
	seen := make(map[string]bool) // a warning per request is reported once
	for _, line := range strings.Split(v.Logged(t), "\n") {
		warning := strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") ||
			strings.Contains(line, "panic")
		_, message, _ := strings.Cut(line, " ") // without the time
		if warning && !seen[message] && !strings.Contains(line, "refused") && !contains(line, v.Expected) {
			t.Errorf("imgward logged: %s", line)
		}
		seen[message] = true
	}
}

// Logged returns what the daemon has logged.
func (v *View) Logged(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(v.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func contains(line string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// spareFDs is how many more descriptors than at the start a worker may hold when nothing is open through the view:
// the control socket's last client, and what the runtime and the guard opened lazily.
const spareFDs = 8

// checkFDs lets the kernel forget its inodes, then compares the worker's descriptors with those at the start.
func (v *View) checkFDs(t testing.TB, pid int) {
	t.Helper()
	now := 0
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		// 2: dentries and inodes, so that the kernel sends FORGET for what nobody uses.
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		if now = v.openFDs(t, pid); now <= v.fds+spareFDs {
			return
		}
	}
	t.Errorf("imgward has %d descriptors open at the end, %d when it began to serve", now, v.fds)
}

// openFDs counts a process's descriptors, but for pipes: go-fuse keeps those that it spliced data through in a pool.
func (v *View) openFDs(t testing.TB, pid int) int {
	t.Helper()
	dir := filepath.Join(v.host.root, "/proc", itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && !strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// Ended waits for the end of a view that the test has unmounted itself; keeper is its keeper.
func (v *View) Ended(t testing.TB, keeper int) {
	t.Helper()
	v.ended = true
	v.gone(t, keeper)
	v.checkLog(t)
}

// KillAll ends keeper and worker with SIGKILL, so that a dead mount is left.
func (v *View) KillAll(t testing.TB) {
	t.Helper()
	v.ended = true
	s := v.Status(t)
	// Stopped first, both of them: the one that dies second would bring the other back.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range []int{s.KeeperPID, s.PID} {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	v.gone(t, s.KeeperPID)
	v.gone(t, s.PID)
}

// gone waits until a process of the view's host is gone.
func (v *View) gone(t testing.TB, pid int) {
	t.Helper()
	Until(t, "process "+itoa(pid)+" ends", func() bool {
		_, err := os.Stat(filepath.Join(v.host.root, "/proc", itoa(pid)))
		return errors.Is(err, os.ErrNotExist)
	})
}

// Mounts lists the mount points of the sandbox's FUSE mounts.
func Mounts(t testing.TB) []string {
	t.Helper()
	mounts, err := fuseMounts()
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for _, m := range mounts {
		points = append(points, m.point)
	}
	return points
}

func mounted(t testing.TB, dir string) bool {
	t.Helper()
	return slices.Contains(Mounts(t), dir)
}
