package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// View is a mounted view, or, natively, nothing over the same directory.
type View struct {
	Dir    string
	host   *Host
	daemon *Daemon
	fds    int // of the worker, when it began to serve
}

// Imgward returns the path of the command under test.
func Imgward() string { return filepath.Join(os.Getenv(rootEnv), imgwardBin) }

// Mount puts a view over the host's directory of images and waits until it serves. opts go before the directory. The
// cleanup unmounts it, and fails the test if the daemon logged a warning or kept descriptors.
func (h *Host) Mount(t testing.TB, opts ...string) *View {
	t.Helper()
	v := &View{Dir: h.Images, host: h}
	if Native() {
		return v
	}
	args := append([]string{Imgward(), "mount", "-f"}, opts...)
	v.daemon = Spawn(t, filepath.Join(h.Dir, "imgward.log"), append(args, h.Images)...)
	Until(t, "the view serves", func() bool {
		if !v.daemon.Alive() {
			t.Fatalf("imgward mount ended at once:\n%s", v.daemon.Logged(t))
		}
		return mounted(t, h.Images) && Run(t, Imgward(), "status", "--json", h.Images).Exit == 0
	})
	v.fds = v.openFDs(t)
	t.Cleanup(func() { v.end(t) })
	return v
}

// end unmounts and checks the daemon's conduct.
func (v *View) end(t testing.TB) {
	t.Helper()
	if !v.daemon.Alive() {
		t.Errorf("imgward ended during the test")
		return
	}
	v.checkFDs(t)
	Run(t, Imgward(), "umount", v.Dir).OK(t)
	Until(t, "imgward ends after umount", func() bool { return !v.daemon.Alive() })
	if mounted(t, v.Dir) {
		t.Errorf("%s is still mounted", v.Dir)
	}
	for _, line := range strings.Split(v.daemon.Logged(t), "\n") {
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "refused") || strings.Contains(line, "level=ERROR") {
			t.Errorf("imgward logged: %s", line)
		}
	}
}

// spareFDs is how many more descriptors than at the start a worker may hold when nothing is open through the view:
// its control socket's last client, and the runtime's own.
const spareFDs = 8

// checkFDs lets the kernel forget its inodes, then compares the worker's descriptors with those at the start.
func (v *View) checkFDs(t testing.TB) {
	t.Helper()
	now := 0
	for range 50 {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		if now = v.openFDs(t); now <= v.fds+spareFDs {
			return
		}
	}
	t.Errorf("imgward has %d descriptors open, %d when it began to serve", now, v.fds)
}

func (v *View) openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir(filepath.Join("/proc", itoa(v.Status(t).PID), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func mounted(t testing.TB, dir string) bool {
	t.Helper()
	mounts, err := fuseMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.point == dir {
			return true
		}
	}
	return false
}
