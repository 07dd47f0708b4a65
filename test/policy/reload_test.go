// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestReload(t *testing.T) {
	v := mount(t, allAlways)
	me, image := program(t, t.TempDir()+"/me"), v.image(t, "a.img")
	is := func(want string) func() bool {
		return func() bool { return does(t, me, 0, "write", image) == want }
	}
	until(t, "it is protected", is("EBUSY"))
	v.setPolicy(t, "protect = \"never\"\n")
	until(t, "the edit is noticed", is("ok"))

	// A mistake changes nothing, is told to whoever asks, and shows; over a take-over as well.
	v.setPolicy(t, "protect = \"alway\"\n")
	if out, err := v.try(t, "policy", "reload", v.dir); err == nil || !strings.Contains(out, `did you mean "always"`) {
		t.Errorf("reload of a spoilt file: %v %s", err, out)
	}
	for range 2 {
		if !is("ok")() {
			t.Error("a spoilt file has changed something")
		}
		if w := strings.Join(v.describe(t).Warnings, "\n"); !strings.Contains(w, "line 1") {
			t.Errorf("warnings: %q", w)
		}
		v.killWorker(t)
	}
	if events := v.run(t, "events", "--json", v.dir); !is("ok")() {
		t.Errorf("not as before: %s", events)
	}

	// Whoever can write the file can end the protection.
	v.setPolicy(t, allAlways)
	if err := os.Chmod(v.policy, 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := v.try(t, "policy", "reload", v.dir); err == nil || !strings.Contains(out, "chmod") {
		t.Errorf("reload of a file that everybody can write: %v %s", err, out)
	}
	if err := os.Chmod(v.policy, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(v.describe(t).PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the hangup reloads", is("EBUSY"))
	if w := v.describe(t).Warnings; len(w) != 0 {
		t.Errorf("warnings stay: %q", w)
	}
}

func TestPolicyCheck(t *testing.T) {
	v := mount(t, allAlways)
	v.image(t, "a.img")
	v.image(t, "b\n.img")
	next := v.policy + ".next"
	text := "protect = \"always\"\n[[rule]]\npaths = [\"b*\"]\nmode = \"audit\"\n"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out := v.run(t, "policy", "check", next)
	if !strings.Contains(out, `"b\n.img": refused (EBUSY)`) || !strings.Contains(out, "logged only") || strings.Contains(out, "a.img") {
		t.Errorf("check says:\n%s", out)
	}
	if out, err := v.try(t, "policy", "check", "/dev/null"); err != nil || !strings.Contains(out, "valid") {
		t.Errorf("an empty file: %v %s", err, out)
	}
}

// TestDeadView: a view whose daemon is gone, keeper and all, hides neither the other views nor what is asked of them.
func TestDeadView(t *testing.T) {
	v, dead := mount(t, allAlways), mountDead(t)
	v.image(t, "a.img")
	next := v.policy + ".next"
	if err := os.WriteFile(next, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := v.run(t, "policy", "check", next); !strings.Contains(out, "a.img: refused") || !strings.Contains(out, dead+" is left out") {
		t.Errorf("policy check says:\n%s", out)
	}
	if out, err := v.try(t, "status"); err == nil || !strings.Contains(out, v.dir) || !strings.Contains(out, dead) {
		t.Errorf("status: %v\n%s", err, out)
	}
	if out, err := v.try(t, "doctor"); err == nil || !strings.Contains(out, dead+" is a dead view") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

// mountDead leaves a mounted view without daemon or keeper, and returns its mountpoint.
func mountDead(t *testing.T) string {
	t.Helper()
	v := newView(t, allAlways)
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	t.Cleanup(func() {
		if err := syscall.Unmount(v.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	killAll(t, v)
	return v.dir
}

// killAll leaves a view without daemon and keeper.
func killAll(t *testing.T, v *view) {
	t.Helper()
	d := v.describe(t)
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} { // none may start another in between
		for _, pid := range []int{d.KeeperPID, d.PID} {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "the daemon is gone", func() bool {
		_, err := v.try(t, "status", "--json", v.dir)
		return err != nil
	})
}
