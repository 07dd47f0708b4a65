// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
)

// TestNewKeeperWhereNothingCanBeWritten: a dead keeper gets a successor also while the runtime directory is full, and if it
// could not have one, as soon as it can.
func TestNewKeeperWhereNothingCanBeWritten(t *testing.T) {
	v := newView(t, "")
	if err := os.MkdirAll(control.RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", control.RunDir, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, control.RunDir) })
	v.mount(t)
	full := filepath.Join(control.RunDir, "full")
	fill := func() {
		err := os.WriteFile(full, make([]byte, 1<<20), 0o600)
		if err == nil {
			t.Fatal("the runtime directory is not full")
		}
	}
	killKeeper := func() int {
		keeper := v.describe(t).KeeperPID
		if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return keeper
	}
	warns := func() bool { return strings.Contains(strings.Join(v.describe(t).Warnings, " "), "the keeper is gone") }

	fill()
	before := killKeeper()
	until(t, "a new keeper holds the view", func() bool { return v.describe(t).KeeperPID != before && !warns() })

	// Somebody else holds the view's lock.
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(full)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(full, filepath.Join(control.Dir(v.dir), "lock")); err != nil {
		t.Fatal(err)
	}
	before = killKeeper()
	until(t, "the log says that there is no new keeper", func() bool { return strings.Contains(v.logged(t), "no new keeper") })
	if !warns() {
		t.Error("status does not warn")
	}
	lock.Close()
	until(t, "a new keeper holds the view", func() bool { return v.describe(t).KeeperPID != before && !warns() })
	v.killWorker(t)
}
