// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// qemu starts a real QEMU with an image open, and waits until it is ready.
func qemu(t *testing.T, image string, options string) *process {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err) // `make deps` installs it
	}
	p := start(t, path, "-nodefaults", "-display", "none", "-machine", "none", "-qmp", "stdio",
		"-blockdev", "driver=file,node-name=a,filename="+image+options)
	// It answers when everything is open; its greeting comes before that.
	io.WriteString(p.in, `{"execute": "qmp_capabilities"}`+"\n")
	for !strings.Contains(p.hear(t), `"return"`) {
	}
	return p
}

func image(t *testing.T) (path string, f *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, f
}

func TestVMMFiles(t *testing.T) {
	path, f := image(t)
	c := classifier()
	c.VMMs = []string{"/usr/bin/qemu-system-*"}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	find := func() (found []OpenFile) {
		_, err := c.VMMFiles(context.Background(), nil, nobody, func(o OpenFile) bool {
			if o.Dev == st.Dev && o.Ino == st.Ino {
				found = append(found, o)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := find(); len(got) != 0 {
		t.Fatalf("before QEMU runs: %+v", got)
	}
	for _, tc := range []struct {
		options string
		write   bool
	}{{"", true}, {",read-only=on", false}} {
		p := qemu(t, path, tc.options)
		got := find()
		if len(got) != 1 || got[0].PID != p.Process.Pid || got[0].Path != path || got[0].Write != tc.write {
			t.Errorf("QEMU with %q: %+v", tc.options, got)
		}
		p.Process.Kill()
		p.Wait()
	}
}

func TestVMMFilesEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := classifier().VMMFiles(ctx, nil, nobody, func(OpenFile) bool { return true }); err == nil {
		t.Error("the walk goes on without anybody waiting for it")
	}
}

func TestOpenElsewhere(t *testing.T) {
	path, f := image(t)
	var leases Leases
	elsewhere := func() bool { return leases.OpenElsewhere(int(f.Fd()), 1) }
	if !leases.seesAll(int(f.Fd()), 1) {
		need.Skip(t, "TMPDIR is on a file system without leases (fcntl(2), F_SETLEASE), which ext4, XFS and btrfs have")
	}
	if elsewhere() {
		t.Error("nobody else has it open, and yet")
	}
	for _, options := range []string{"", ",read-only=on", ",locking=off"} {
		p := qemu(t, path, options)
		if !elsewhere() {
			t.Errorf("QEMU with %q has it open, and nobody notices", options)
		}
		p.Process.Kill()
		p.Wait()
	}
	if elsewhere() {
		t.Error("QEMU has gone, and yet")
	}
	self, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if !elsewhere() {
		t.Error("another descriptor of this process is not noticed")
	}
}

// The systemd unit leaves the daemon no CAP_LEASE, and images belong to QEMU's user.
func TestOpenElsewhereWithoutCapability(t *testing.T) {
	need.Have(t, need.Root)
	path, f := image(t)
	var leases Leases
	if !leases.seesAll(int(f.Fd()), 1) {
		need.Skip(t, "TMPDIR is on a file system without leases (fcntl(2), F_SETLEASE), which ext4, XFS and btrfs have")
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	alone := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, and its capabilities with it
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&header, &caps[0]); err != nil {
			t.Error(err)
		}
		caps[0].Effective &^= 1 << unix.CAP_LEASE
		if err := unix.Capset(&header, &caps[0]); err != nil {
			t.Error(err)
		}
		first := !leases.OpenElsewhere(int(f.Fd()), 1)
		uid, err := unix.SetfsuidRetUid(0)
		if uid != 0 || err != nil {
			t.Errorf("the thread goes on as user %d, %v", uid, err)
		}
		alone <- first
	}()
	if !<-alone {
		t.Error("nobody else has another user's file open, and yet")
	}
}

// A probe must not make others' opens fail: without O_NONBLOCK they wait for a microsecond.
func TestOpenElsewhereDisturbsNobody(t *testing.T) {
	path, f := image(t)
	var leases Leases
	elsewhere := func() bool { return leases.OpenElsewhere(int(f.Fd()), 1) }
	done := make(chan error, 1)
	go func() {
		for range 2000 {
			g, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				done <- err
				return
			}
			g.Close()
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			elsewhere()
		}
	}
}

func TestOpenRetry(t *testing.T) {
	tries := 0
	_, err := OpenRetry(func() (*os.File, error) {
		if tries++; tries < 3 {
			return nil, &os.PathError{Op: "open", Path: "x", Err: unix.EWOULDBLOCK}
		}
		return nil, unix.ENOENT
	})
	if tries != 3 || err != unix.ENOENT {
		t.Errorf("%d tries, %v", tries, err)
	}
}

// nobody is left out of a walk.
func nobody(string) bool { return false }
