// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file without a mistake may still not do what it says. `imgward policy check` calls none of these valid.
func TestPolicyTraps(t *testing.T) {
	v := mount(t, allAlways)
	v.image(t, "golden/base.img")
	bin, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	agent := program(t, bin+"/agent")
	script := filepath.Join(bin, "backup.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntrue\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(bin, "link")
	if err := os.Symlink(agent, link); err != nil {
		t.Fatal(err)
	}
	dirLink := bin + ".link"
	if err := os.Symlink(bin, dirLink); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dirLink) })
	rule := func(pattern string) string {
		return "[[rule]]\npaths = [\"" + pattern + "\"]\nprotect = \"always\"\n"
	}
	for text, want := range map[string][]string{
		rule("golden/"):                         {`"golden/**"`},
		rule(v.dir + "/golden/*.img"):           {`"golden/*.img"`, "root of the view"},
		rule("/var/lib/none/golden/*"):          {"root of the view"},
		rule("golden/../x"):                     {"matches no file"},
		rule("/golden/*.img"):                   nil,
		rule("golden/**"):                       nil,
		"trusted = [\"" + script + "\"]":        {"script", "/bin/sh", "trusted_cgroup"},
		"trusted = [\"" + link + "\"]":          {"symbolic link", agent},
		"trusted = [\"" + dirLink + "/agent\"]": {"symbolic link", agent},
		"trusted = [\"" + bin + "/none\"]":      {"no such file", "nobody is trusted"},
		"trusted = [\"" + bin + "/none*\"]":     {"no such file"},
		"trusted = [\"" + bin + "\"]":           {"directory"},
		"trusted = [\"" + agent + "\"]":         nil,
		"trusted = [\"/usr/bin/*\"]":            {"protects against nobody", "/usr/bin/dd"},
		"trusted = [\"/usr/bin/dd\"]":           {"protects against nobody"},
		"trusted = [\"/usr/*bin/python3*\"]":    {"protects against nobody"},
		"vmm = [\"/usr/bin/*\"]":                {"protects against nobody"},
		"vmm = [\"" + bin + "/qemu\"]":          {"no such file"},
		"vmm = [\"" + agent + "\"]":             nil,
		"manager = [\"" + script + "\"]":        {"script"},
		"vmm = [\"only\", \"" + agent + "\"]":   {"leaves out /usr/bin/qemu-system-x86_64"},
		"vmm = [\"only\", \"/usr/*/qemu-system-*\", \"/usr/bin/qemu-nbd\", \"/usr/bin/qemu-storage-daemon\"]": nil,
		"trusted_cgroup = [\"/\"]":                                     {"nobody is trusted"},
		"trusted_cgroup = [\"/user.slice\"]":                           {"protects against nobody"},
		"trusted_cgroup = [\"/*\"]":                                    {"protects against nobody"},
		"trusted_cgroup = [\"/sys/fs/cgroup/system.slice/x.service\"]": {`"/system.slice/x.service"`},
		"trusted_cgroup = [\"/system.slice/backup.service\"]":          nil,
		"deny = []":                              {"refuses nothing"},
		"deny = [\"unlink\"]":                    nil,
		"protect = \"never\"":                    nil, // says what it does
		"mode = \"audit\"\n" + rule("golden/**"): nil,
	} {
		file := v.policy + ".trap"
		if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out := v.code(t, "policy", "check", file)
		if len(want) == 0 && (code != 0 || !strings.Contains(out, ": valid\n")) {
			t.Errorf("%s: exit code %d\n%s", text, code, out)
		}
		if len(want) > 0 && (code != 1 || strings.Contains(out, ": valid\n")) {
			t.Errorf("%s: exit code %d\n%s", text, code, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not in\n%s", text, w, out)
			}
		}
	}
}

// vmm, manager and trusted add to what is known anyway; replacing that is said in a word of its own.
func TestListsAdd(t *testing.T) {
	v := mount(t, "vmm = [\"/opt/qemu/bin/qemu-*\"]\nmanager = [\"/opt/libvirt/libvirtd\"]\n")
	out := v.run(t, "policy", "show", v.dir)
	for _, p := range []string{"/opt/qemu/bin/qemu-*", "/usr/bin/qemu-system-*", "/opt/libvirt/libvirtd", "/usr/sbin/libvirtd"} {
		if !strings.Contains(out, `"`+p+`"`) {
			t.Errorf("%s is not in\n%s", p, out)
		}
	}
	v.setPolicy(t, "vmm = [\"only\", \"/opt/qemu/bin/qemu-*\"]\n")
	v.run(t, "policy", "reload", v.dir)
	out = v.run(t, "policy", "show", v.dir)
	if !strings.Contains(out, `vmm = ["only", "/opt/qemu/bin/qemu-*"]`) || !strings.Contains(out, "/usr/sbin/libvirtd") {
		t.Errorf("vmm is replaced, and only that; it shows\n%s", out)
	}
	v.killWorker(t) // the successor reads the same from what was written down
	if again := v.run(t, "policy", "show", v.dir); again != out {
		t.Errorf("after a take-over\n%s\nwas\n%s", again, out)
	}
	v.setPolicy(t, "vmm = [\"/opt/qemu/bin/qemu-*\", \"only\"]\n")
	if out, err := v.try(t, "policy", "reload", v.dir); err == nil || !strings.Contains(out, `"only" comes first`) {
		t.Errorf("the word in another place: %v %s", err, out)
	}
}
