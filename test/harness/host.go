// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Host is a libvirt host for one test: a libvirtd of its own, a directory for images and one beside it.
type Host struct {
	Dir    string // everything of this test; searchable by QEMU's user
	Images string // Dir/images: where a view goes
	Out    string // Dir/out: on the same file system, outside of any view
	Strict bool   // its view has a policy that protects what persistent domains would use, running or not

	// Emulator is what its domains run in; empty: the host's own QEMU. See InstallEmulator.
	Emulator string

	beneath string // reaches Images' own directory, also when a view is mounted over it
	libvirt *Daemon
	views   int // mounted so far; each has a log of its own

	enter []string // what runs a command on this host, when that is another one
	root  string   // and where its root directory is seen from here
}

// New makes a host and starts its libvirtd. Only one host can run at a time in a sandbox, since libvirtd's socket has a
// fixed place: tests that use one do not run in parallel.
func New(t testing.TB) *Host {
	t.Helper()
	h := NewFiles(t)
	h.StartLibvirt(t)
	return h
}

// StartLibvirt starts libvirt on a host that was made by NewFiles.
func (h *Host) StartLibvirt(t testing.TB) {
	t.Helper()
	Spawn(t, filepath.Join(h.Dir, "virtlogd.log"), "virtlogd")
	h.StartLibvirtd(t)
	// Here and not in StartLibvirtd: domains are removed by cleanups that were registered later, and need a libvirtd.
	t.Cleanup(func() { h.libvirt.Stop(t) })
}

// NewFiles makes the directories of a host, without libvirt.
func NewFiles(t testing.TB) *Host {
	t.Helper()
	root := os.Getenv(rootEnv)
	if root == "" {
		t.Fatal("not in a sandbox: TestMain must call harness.Main")
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	dir, err := os.MkdirTemp(root, name+".")
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Dir: dir, Images: filepath.Join(dir, "images"), Out: filepath.Join(dir, "out")}
	for _, d := range []string{h.Dir, h.Images, h.Out} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o711); err != nil { // MkdirTemp's 0700, and the umask
			t.Fatal(err)
		}
	}
	h.beneath = pinDir(t, h.Images)
	t.Cleanup(func() { h.keepLogs(t) })
	return h
}

// pinDir returns a path to dir that stays on its own inode when something is mounted over dir.
func pinDir(t testing.TB, dir string) string {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return filepath.Join("/proc", itoa(os.Getpid()), "fd", itoa(int(f.Fd())))
}

// Beneath returns the path of the same file in the backing directory, past the view.
func (h *Host) Beneath(t testing.TB, image string) string {
	t.Helper()
	rel, err := filepath.Rel(h.Images, image)
	if err != nil || strings.HasPrefix(rel, "..") {
		t.Fatalf("%s is not below %s", image, h.Images)
	}
	return filepath.Join(h.beneath, rel)
}

// StartLibvirtd starts libvirtd and waits until it answers.
func (h *Host) StartLibvirtd(t testing.TB) {
	t.Helper()
	h.libvirt = start(t, filepath.Join(h.Dir, "libvirtd.log"), "libvirtd")
	Until(t, "libvirtd answers", func() bool {
		if !h.libvirt.Alive() {
			t.Fatalf("libvirtd ended at once:\n%s", h.libvirt.Logged(t))
		}
		return h.Virsh(t, "version").Exit == 0
	})
}

// Libvirtd is the running libvirtd, to be stopped or killed by a test; StartLibvirtd starts another one.
func (h *Host) Libvirtd() *Daemon { return h.libvirt }

// Exec runs a command on this host.
func (h *Host) Exec(t testing.TB, args ...string) Result {
	t.Helper()
	return Run(t, append(slices.Clone(h.enter), args...)...)
}

// Virsh runs one virsh command.
func (h *Host) Virsh(t testing.TB, args ...string) Result {
	t.Helper()
	return h.Exec(t, append([]string{"virsh", "-q", "-c", "qemu:///system"}, args...)...)
}

// keepLogs shows what the daemons said when the test failed; their files are removed with the sandbox.
func (h *Host) keepLogs(t testing.TB) {
	if !t.Failed() {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(h.Dir, "*.log"))
	for _, log := range logs {
		if b, err := os.ReadFile(log); err == nil && len(b) > 0 {
			t.Logf("%s:\n%s", filepath.Base(log), tail(string(b), 40))
		}
	}
}

// tail returns the last lines of s.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
