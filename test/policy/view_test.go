// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/test/need"
)

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("IMGWARD_BIN"); dir != "" {
		return filepath.Join(dir, "imgward"), nil
	}
	bin := filepath.Join(os.TempDir(), "imgward-policy-test", "imgward")
	cmd := exec.Command("go", "build", "-o", bin, "imgward/cmd/imgward")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		bin = string(out)
	}
	return bin, err
})

// view is a directory under protection, with a policy of its own.
type view struct {
	dir, policy, log string
}

func mount(t *testing.T, policy string) *view {
	t.Helper()
	v := newView(t, policy)
	v.mount(t)
	return v
}

func (v *view) mount(t *testing.T) {
	t.Helper()
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })
}

// newView makes the directories of a view that is not mounted yet.
func newView(t *testing.T, policy string) *view {
	t.Helper()
	need.Have(t, need.View()...)
	base, err := os.MkdirTemp("/var/lib", "imgward-policy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	v := &view{dir: filepath.Join(base, "view"), policy: filepath.Join(base, "policy.toml"), log: filepath.Join(base, "log")}
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	v.setPolicy(t, policy)
	return v
}

// setPolicy puts another file in the policy's place.
func (v *view) setPolicy(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(v.policy+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(v.policy+".new", v.policy); err != nil {
		t.Fatal(err)
	}
}

// image makes a file below the view.
func (v *view) image(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (v *view) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatalf("build: %v: %s", err, bin)
	}
	cmd := exec.Command(bin, args...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (v *view) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := v.try(t, args...)
	if err != nil {
		t.Fatalf("imgward %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// until waits for what is to become true.
func until(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}
