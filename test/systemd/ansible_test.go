// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/need"
)

const (
	role     = "../../dist/ansible"
	playbook = "/srv/ansible/protect.yml"
	// systemd writes its dash as \x2d.
	dashed = "/srv/vm-images"
)

// vars are variables of the role.
type vars map[string]any

func (v vars) with(name string, value any) vars {
	changed := vars{name: value}
	for n, was := range v {
		if n != name {
			changed[n] = was
		}
	}
	return changed
}

// TestAnsible: the first run installs a package and protects, the second changes nothing, an invalid policy leaves the one
// that holds, check mode only tells, a new policy holds at once, other programs take over, and a view that is gone fails the
// check. (Each run takes some ten seconds of CPU time.)
func TestAnsible(t *testing.T) {
	b, v := controller(t)
	b.changes(t, v)
	for _, unit := range []string{service, `imgward@srv-vm\\x2dimages.service`} {
		b.run(t, "systemctl is-active "+unit+" && systemctl is-enabled "+unit)
	}
	b.run(t, "dpkg-query -W imgward")
	b.refused(t, images+"/golden.img")
	b.refused(t, dashed+"/golden.img")
	b.run(t, ": >"+images+"/other.img")
	first := b.view(t)
	b.same(t, v)

	const file = "/etc/imgward/policy.toml"
	before := b.run(t, "cat "+file)
	b.fails(t, "no_such_key", v.with("imgward_policy", rule("golden*")+"no_such_key = 1\n"))
	if got := b.run(t, "cat "+file); got != before {
		t.Errorf("a refused policy is in place:\n%s", got)
	}
	b.refused(t, images+"/golden.img")

	v = v.with("imgward_policy", rule("other*"))
	b.changes(t, v, "--check")
	b.run(t, ": >"+images+"/other.img")
	b.changes(t, v)
	b.refused(t, images+"/other.img")
	b.run(t, ": >"+images+"/golden.img")
	if now := b.view(t); now.PID != first.PID {
		t.Errorf("a new policy has replaced the worker %d by %d", first.PID, now.PID)
	}

	v = v.with("imgward_package", "").with("imgward_binaries", "/srv/bin")
	b.changes(t, v)
	if now := b.view(t); now.PID == first.PID {
		t.Error("the programs that were copied have not taken over")
	}
	b.run(t, "test -x /usr/sbin/mount.imgward && grep -q ExecStart=/usr/local/bin/imgward '/etc/systemd/system/imgward@.service'")
	b.refused(t, images+"/other.img")
	b.run(t, "imgward umount "+images)
	b.fails(t, "not inside an imgward view", v, "--tags", "imgward_check")
}

// TestAnsibleLint: the role and its example are what ansible-lint wants for production.
func TestAnsibleLint(t *testing.T) {
	need.Long(t)
	need.Extra(t, "ansible-core ansible-lint", "ansible-playbook", "ansible-lint")
	for _, args := range [][]string{
		{"ansible-playbook", "--syntax-check", "-i", "localhost,", "protect.yml"},
		{"ansible-lint", "--offline", "--profile", "production", "--strict", "protect.yml", "roles/imgward"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = role
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// rule is a policy that always protects the images of this name.
func rule(name string) string {
	return "[[rule]]\npaths = [\"" + name + "\"]\nprotect = \"always\"\n"
}

// controller boots a host that manages itself and has two directories to protect; with it come the role's variables.
func controller(t *testing.T) (*booted, vars) {
	t.Helper()
	need.Long(t)
	need.Extra(t, "ansible-core", "ansible-playbook")
	b := boot(t)
	bin, err := build()
	if err != nil {
		t.Fatalf("build: %v: %s", err, bin)
	}
	for dir, names := range map[string][]string{role: {"protect.yml", "roles"}, filepath.Dir(bin): {"imgward"}} {
		to := map[bool]string{true: "/srv/ansible", false: "/srv/bin"}[dir == role]
		tar := exec.Command("tar", append([]string{"-C", dir, "-ch"}, names...)...)
		untar := b.enter("sh", "-c", "mkdir -p "+to+" && tar -x -C "+to)
		if untar.Stdin, err = tar.StdoutPipe(); err != nil {
			t.Fatal(err)
		}
		if err := tar.Start(); err != nil {
			t.Fatal(err)
		}
		if out, err := untar.CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v: %s", dir, err, out)
		}
		if err := tar.Wait(); err != nil {
			t.Fatalf("copy %s: %v", dir, err)
		}
	}
	b.run(t, makeDeb+"; mkdir "+images+" "+dashed+" && for d in "+images+" "+dashed+"; do truncate -s 1M $d/golden.img $d/other.img; done")
	return b, vars{"imgward_package": "/srv/imgward.deb", "imgward_policy": rule("golden*"), "imgward_binaries": "", "imgward_directories": []string{images, dashed}}
}

// makeDeb makes a package of the programs under test; test/packages tests the real one.
const makeDeb = `set -e; cp /srv/bin/imgward /srv/bin/imgcp; cd /srv; mkdir -p deb/DEBIAN deb/usr/bin deb/usr/lib/systemd/system
cp bin/* deb/usr/bin; cp ansible/roles/imgward/files/systemd/* deb/usr/lib/systemd/system
printf 'Package: imgward\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n' >deb/DEBIAN/control
dpkg-deb -Znone --root-owner-group -b deb imgward.deb`

// play runs the example playbook there, with other variables.
func (b *booted) play(t *testing.T, v vars, args ...string) (string, error) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.enter(append([]string{"env", "LC_ALL=C.UTF-8", "HOME=/root", "ANSIBLE_NOCOLOR=1", "ANSIBLE_PIPELINING=1",
		"ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3", "timeout", "600",
		"ansible-playbook", "-i", "localhost,", "-c", "local", "-u", "root", "-e", string(text), playbook}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *booted) refused(t *testing.T, image string) {
	t.Helper()
	if out, err := b.try(": >" + image); err == nil || !strings.Contains(out, "busy") {
		t.Errorf("truncating %s: %v %s", image, err, out)
	}
}

func (b *booted) changes(t *testing.T, v vars, args ...string) {
	t.Helper()
	out, err := b.play(t, v, args...)
	if err != nil {
		t.Fatalf("%q: %v\n%s\n%s", args, err, out, b.journal())
	}
	if strings.Contains(out, "changed=0 ") {
		t.Errorf("%q changes nothing:\n%s", args, out)
	}
}

func (b *booted) same(t *testing.T, v vars, args ...string) string {
	t.Helper()
	out, err := b.play(t, v, args...)
	if err != nil || !strings.Contains(out, "changed=0 ") {
		t.Errorf("%q, where all is as it should be: %v\n%s", args, err, out)
	}
	return out
}

func (b *booted) fails(t *testing.T, why string, v vars, args ...string) {
	t.Helper()
	out, err := b.play(t, v, args...)
	if err == nil || !strings.Contains(out, why) {
		t.Errorf("%q does not fail with %q: %v\n%s", args, why, err, out)
	}
}
