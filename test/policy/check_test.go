// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"imgward/guard/policy"
	"imgward/test/need"
)

// `imgward check` knows the operations of exceptions and events, and gives the answer that its caller would get.
func TestCheckKnowsEveryOperation(t *testing.T) {
	v := mount(t, "[[rule]]\npaths = [\"always/**\"]\nprotect = \"always\"\n")
	image := v.image(t, "always/a.img")
	ops := append(policy.AllOps.Names(), "write-data", "fallocate", "copy-into", "replace", "rename-dir")
	for _, op := range ops {
		if code, out := v.code(t, "check", op, image); code != 3 || !strings.Contains(out, "refused: the policy protects it always") {
			t.Errorf("%s: exit code %d, %s", op, code, out)
		}
		if code, out := v.code(t, "check", op, v.image(t, "free.img")); code != 0 || !strings.Contains(out, "allowed: it is not in use") {
			t.Errorf("%s of a free one: exit code %d, %s", op, code, out)
		}
	}
	for _, op := range []string{"rename", "rename-dir"} {
		if code, out := v.code(t, "check", op, v.dir+"/always"); code != 3 || !strings.Contains(out, "always/a.img") {
			t.Errorf("%s of the directory above: exit code %d, %s", op, code, out)
		}
	}
	if code, out := v.code(t, "check", "truncate", v.dir+"/always"); code != 1 || !strings.Contains(out, "directory") {
		t.Errorf("truncate of a directory: exit code %d, %s", code, out)
	}
	if code, out := v.code(t, "check", "truncat", image); code != 2 || !strings.Contains(out, "set-flags") {
		t.Errorf("a misspelt operation: exit code %d, %s", code, out)
	}
}

// It says why something is allowed, and what it says is what happens.
func TestCheckSaysWhy(t *testing.T) {
	v := mount(t, `[[rule]]
paths = ["always*"]
protect = "always"
[[rule]]
paths = ["audit*"]
protect = "always"
mode = "audit"
[[rule]]
paths = ["never*"]
protect = "never"
[[rule]]
paths = ["unlink*"]
protect = "always"
deny = ["unlink"]
`)
	excepted := v.image(t, "always-excepted.img")
	v.run(t, "allow", "--op", "truncate,write", "--for", "1m", "--once", "--reason", "test", excepted)
	for _, c := range []struct{ image, want string }{
		{excepted, "allowed: exception 1\n"},
		{v.image(t, "always.img"), "refused: the policy protects it always\n"},
		{v.image(t, "audit.img"), "allowed: audit only (the policy protects it always)\n"},
		{v.image(t, "never.img"), "allowed: the policy protects it never\n"},
		{v.image(t, "unlink.img"), "allowed: the policy does not refuse truncate\n"},
		{v.image(t, "free.img"), "allowed: it is not in use\n"},
	} {
		_, out := v.code(t, "check", "truncate", c.image)
		if !strings.HasSuffix(out, ": "+c.want) {
			t.Errorf("check: %s, want %s", out, c.want)
		}
		if code, said := sh(t, "truncate -s 0 "+c.image); (code == 0) != strings.HasPrefix(c.want, "allowed") {
			t.Errorf("truncate(1): exit code %d, %s; check: %s", code, said, c.want)
		}
	}
}

// Who asks is judged: by his login, and by what the policy says of his program or control group.
func TestCheckJudgesItsCaller(t *testing.T) {
	group := cgroup(t)
	v := mount(t, "protect = \"always\"\ntrusted_cgroup = [\""+group.name+"\"]\n")
	image := v.image(t, "a.img")
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if code, out := sh(t, "echo $$ >"+group.dir+"/cgroup.procs && "+bin+" check truncate "+image); code != 0 ||
		!strings.Contains(out, "allowed: the policy trusts") {
		t.Errorf("in a trusted control group: exit code %d, %s", code, out)
	}
	allow := exec.Command("sh", "-c", "echo 4711 >/proc/self/loginuid && exec "+bin+" allow --op truncate --for 1m --reason test "+image)
	if out, err := allow.CombinedOutput(); err != nil {
		if _, missing := os.Stat("/proc/self/loginuid"); missing != nil || strings.Contains(string(out), "not permitted") {
			need.Kernel(t, "/proc/self/loginuid that can be set (CONFIG_AUDIT; and CAP_AUDIT_CONTROL)")
		}
		t.Fatalf("%v: %s", err, out)
	}
	if code, out := sh(t, "echo 4711 >/proc/self/loginuid && "+bin+" check truncate "+image); code != 0 {
		t.Errorf("the login that has the exception: exit code %d, %s", code, out)
	}
	if code, out := sh(t, bin+" check truncate "+image); code != 3 {
		t.Errorf("another login: exit code %d, %s", code, out)
	}
}

// code runs imgward and returns its exit code and what it said.
func (v *view) code(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := v.try(t, args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, out
	case errors.As(err, &exit):
		return exit.ExitCode(), out
	}
	t.Fatal(err)
	return 0, ""
}

// What is said of the view's own directory reads as a sentence.
func TestRootOfTheView(t *testing.T) {
	v := mount(t, "")
	for _, c := range []struct {
		args string
		want string
	}{
		{"allow --op all --for 1m --reason x .", "imgward: the view's root is a directory: an exception is for one image\n"},
		{"check truncate .", "imgward: the view's root is a directory: it can be renamed, no more\n"},
	} {
		bin, err := build()
		if err != nil {
			t.Fatal(err)
		}
		if code, out := sh(t, "cd "+v.dir+" && "+bin+" "+c.args); code != 1 || out != c.want {
			t.Errorf("%s: exit code %d, %q, want %q", c.args, code, out, c.want)
		}
	}
}
