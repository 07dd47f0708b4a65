// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPathsInside: what a successor has to open before it serves is not reached through the view.
func TestPathsInside(t *testing.T) {
	v := newView(t, allAlways)
	base := filepath.Dir(v.dir)
	link := filepath.Join(base, "link")
	if err := os.Symlink(v.dir, link); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(v.dir, "policy.toml")
	if err := os.WriteFile(inside, []byte(allAlways), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := "policy=" + v.policy
	for name, args := range map[string][]string{
		"the log":               {"--log", filepath.Join(v.dir, "log"), "-o", outside},
		"the log by a link":     {"--log", filepath.Join(link, "log"), "-o", outside},
		"the policy":            {"--log", v.log, "-o", "policy=" + inside},
		"the policy by a link":  {"--log", v.log, "-o", "policy=" + filepath.Join(link, "policy.toml")},
		"the runtime directory": {"--log", v.log, "-o", outside},
	} {
		dir := v.dir
		if name == "the runtime directory" {
			dir = "/run"
		}
		out, err := v.try(t, append(append([]string{"mount"}, args...), dir)...)
		if err == nil {
			v.run(t, "umount", dir)
		}
		if what, _, _ := strings.Cut(name, " by "); err == nil || !strings.Contains(out, what+" ") || !strings.Contains(out, "inside the view") {
			t.Errorf("%s inside the view: %v %s", name, err, out)
		}
	}
}

// TestPathsTurnInside: a path that led elsewhere at the mount leads into the view afterwards.
func TestPathsTurnInside(t *testing.T) {
	v := newView(t, allAlways)
	base := filepath.Dir(v.dir)
	logs, link := filepath.Join(base, "logs"), filepath.Join(base, "link")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	turn := func(target string) {
		t.Helper()
		if err := os.Symlink(target, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	turn(logs)
	for _, dir := range []string{logs, v.dir} {
		if err := os.WriteFile(filepath.Join(dir, "policy.toml"), []byte(allAlways), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	v.run(t, "mount", "--log", filepath.Join(link, "log"), "-o", "policy="+filepath.Join(link, "policy.toml"), v.dir)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })
	turn(v.dir)
	if out, err := v.try(t, "policy", "reload", v.dir); err == nil || !strings.Contains(out, "leads into the view") {
		t.Errorf("reload of a policy that leads into the view: %v %s", err, out)
	}
	v.killWorker(t)
	if w := strings.Join(v.describe(t).Warnings, "\n"); !strings.Contains(w, "leads into the view") {
		t.Errorf("warnings after a take-over: %q", w)
	}
	text, err := os.ReadFile(filepath.Join(logs, "log"))
	if err != nil || !strings.Contains(string(text), "serving again") {
		t.Errorf("the successor logs elsewhere: %v\n%s", err, text)
	}
	if _, err := os.Stat(filepath.Join(v.dir, "log")); err == nil {
		t.Error("the successor logs into the view")
	}
}

// TestPlacesForNoView: directories that imgward, libvirt or the host would wait for themselves in.
func TestPlacesForNoView(t *testing.T) {
	v := newView(t, "")
	for _, dir := range []string{"/run/libvirt/qemu", "/var/lib/libvirt/qemu"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir, why := range map[string]string{
		"/": "", "/usr": "programs", "/usr/bin": "programs", "/run": "runtime directory",
		"/run/libvirt": "libvirt's", "/run/libvirt/qemu": "is in /run/libvirt", "/var/lib/libvirt": "libvirt's", "/var/lib": "libvirt's", "/dev": "device",
		"/proc": "/proc", "/proc/self": "/proc", "/sys": "/sys", "/sys/fs": "/sys", "/etc": "policy", "/var/run/libvirt": "libvirt's",
	} {
		out, err := v.try(t, "mount", "--log", "/root/log", "-o", "policy=/root/policy.toml", dir)
		if err == nil {
			t.Errorf("mount %s: nobody minds", dir)
			v.try(t, "umount", "--lazy", dir)
		} else if !strings.Contains(out, why) || !strings.Contains(out, "mount a directory further down") {
			t.Errorf("mount %s: %s, want a word of %q", dir, out, why)
		}
	}
}

// doctor advises no mount that would be refused.
func TestDoctorAdvisesWhatWorks(t *testing.T) {
	vmm := program(t, t.TempDir()+"/vmm")
	v := mount(t, "vmm = [\""+vmm+"\"]\n")
	const odd = "/var/lib/libvirt/odd.img"
	for _, dir := range []string{"/run/libvirt/qemu", "/var/lib/libvirt/qemu"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(odd, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(odd) })
	h := holdOpen(t, vmm, v.image(t, "a.img"))
	domain(t, "vm", h.pid, disk(odd, "vda"))
	_, list := v.doctor(t)
	for _, f := range list {
		if strings.Contains(f.What, odd) {
			if f.Level != "problem" || strings.Contains(f.Do, "imgward mount /var/lib/libvirt") || !strings.Contains(f.Do, "directory of its own") {
				t.Errorf("%+v", f)
			}
			return
		}
	}
	t.Errorf("doctor does not know of it: %+v", list)
}
