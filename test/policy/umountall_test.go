// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// `imgward umount --all` ends all views or none: what holds one is told before another is gone.
func TestUmountAll(t *testing.T) {
	bin := t.TempDir()
	vmm := program(t, bin+"/vmm")
	text := "vmm = [\"" + vmm + "\"]\n"
	views := []*view{newView(t, text), newView(t, text), newView(t, text)}
	spaced := filepath.Join(filepath.Dir(views[0].dir), "a b\t1")
	if err := os.Rename(views[0].dir, spaced); err != nil {
		t.Fatal(err)
	}
	views[0].dir = spaced
	for _, v := range views {
		v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
		t.Cleanup(func() {
			if code, _ := v.code(t, "umount", v.dir); code == 0 {
				t.Error("a view was left")
			}
		})
	}
	mounted := func() (n int) {
		for _, v := range views {
			if code, _ := v.code(t, "status", v.dir); code == 0 {
				n++
			}
		}
		return n
	}
	h := holdOpen(t, vmm, views[1].image(t, "a.img"))
	code, out := views[0].code(t, "umount", "--all")
	if code != 3 || !strings.Contains(out, "vmm") || !strings.Contains(out, views[1].dir) || !strings.Contains(out, "no view has been unmounted") {
		t.Errorf("a VM holds one: exit code %d, %s", code, out)
	}
	if n := mounted(); n != len(views) {
		t.Fatalf("%d of %d views are left", n, len(views))
	}
	h.end()
	// Somebody stands in another.
	inside := shIn(t, views[2].dir)
	until(t, "the VM lets go, and the bystander counts", func() bool {
		code, out = views[0].code(t, "umount", "--all")
		return code == 3 && !strings.Contains(out, "vmm")
	})
	if !strings.Contains(out, "has its working directory there") || mounted() != len(views) {
		t.Errorf("somebody stands in one: exit code %d, %s", code, out)
	}
	inside()
	if code, out := views[0].code(t, "umount", "--all"); code != 0 {
		t.Errorf("nobody holds any: exit code %d, %s", code, out)
	}
	if n := mounted(); n != 0 {
		t.Errorf("%d views are left", n)
	}
	if code, out := views[0].code(t, "umount", "--all"); code != 0 || !strings.Contains(out, "no imgward view is mounted") {
		t.Errorf("without any: exit code %d, %s", code, out)
	}
	if code, _ := views[0].code(t, "umount"); code != 2 {
		t.Errorf("without a directory: exit code %d", code)
	}
	if code, _ := views[0].code(t, "umount", "--all", "/x"); code != 2 {
		t.Errorf("with both: exit code %d", code)
	}
}

// A view without a daemon holds nobody up, and a second mount of a view goes with it.
func TestUmountAllOddities(t *testing.T) {
	v := mountUnchecked(t)
	second := filepath.Join(filepath.Dir(v.dir), "second")
	if err := os.Mkdir(second, 0o755); err != nil {
		t.Fatal(err)
	}
	if code, out := sh(t, "mount --bind '"+v.dir+"' '"+second+"'"); code != 0 {
		t.Fatal(out)
	}
	dead := newView(t, allAlways)
	dead.run(t, "mount", "--log", dead.log, "-o", "policy="+dead.policy, dead.dir)
	killAll(t, dead)
	if code, out := v.code(t, "umount", "--all"); code != 0 {
		t.Errorf("exit code %d, %s", code, out)
	}
	if code, out := sh(t, "findmnt -rn -t fuse.imgward"); code == 0 {
		t.Errorf("mounts are left:\n%s", out)
		sh(t, "umount -l '"+second+"' '"+v.dir+"' '"+dead.dir+"'")
	}
}

// TestDeviceOfDeadView: the kernel gives the device number of a view that is gone to the next one, which is not asked by the
// other's name.
func TestDeviceOfDeadView(t *testing.T) {
	for range 20 {
		dead := mountUnchecked(t)
		was := device(t, dead.dir)
		killAll(t, dead)
		if err := syscall.Unmount(dead.dir, syscall.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		v := mount(t, allAlways)
		if device(t, v.dir) != was { // Linux gives out the lowest free number, and somebody else has got it
			continue
		}
		if d := v.describe(t); d.PID == 0 {
			t.Errorf("%+v", d)
		}
		return
	}
	t.Error("no view had the device number of the dead one")
}

func device(t *testing.T, dir string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Dev
}

// mountUnchecked is a view that the test ends itself.
func mountUnchecked(t *testing.T) *view {
	t.Helper()
	v := newView(t, "")
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	return v
}

// shIn has a shell stand in a directory until it is told to end.
func shIn(t *testing.T, dir string) (end func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "echo here; read x")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the shell says nothing")
	}
	end = sync.OnceFunc(func() { in.Close(); cmd.Wait() })
	t.Cleanup(end)
	return end
}
