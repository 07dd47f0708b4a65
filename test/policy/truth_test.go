// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// "Protected" is said where an outsider's truncation of an image in use would be refused now, and nowhere else.
func TestProtectedIsTrue(t *testing.T) {
	bin := t.TempDir()
	vmm := program(t, bin+"/vmm")
	const rule = "[[rule]]\npaths = [\"*.img\"]\n"
	for _, c := range []struct {
		policy    string
		view, img bool   // whether it is called protected
		why       string // it is not
	}{
		{"", true, true, ""},
		{"mode = \"audit\"\n", false, false, `mode = "audit"`},
		{"protect = \"never\"\n", false, false, `protect = "never"`},
		{"deny = [\"unlink\", \"rename\"]\n", false, false, `deny leaves out "truncate"`},
		{"trusted = [\"/usr/bin/*\"]\n", false, false, `trusted "/usr/bin/*" covers /usr/bin/dd`},
		{rule + "protect = \"never\"\n", true, false, `protect = "never"`},
		{"protect = \"never\"\n" + rule + "protect = \"running\"\n", false, true, `protect = "never"`},
	} {
		t.Run(c.policy, func(t *testing.T) {
			v := mount(t, fmt.Sprintf("vmm = [%q]\n", vmm)+c.policy)
			image := v.image(t, "vm.img")
			holdOpen(t, vmm, image)
			code, said := sh(t, "truncate -s 4096 "+image)
			if refused := code != 0; refused != c.img {
				t.Fatalf("the test is wrong: truncate says %s", said)
			}
			status := v.run(t, "status", v.dir)
			first, _, _ := strings.Cut(status, "\n")
			if strings.Contains(first, ": protected since") != c.view || strings.Contains(first, "NOT protected") == c.view {
				t.Errorf("status says of the view: %s", first)
			}
			if line := lineOf(status, "vm.img"); strings.Contains(line, "NOT PROTECTED") == c.img {
				t.Errorf("status says of the image: %s", line)
			}
			if c.why != "" && !strings.Contains(status, c.why) {
				t.Errorf("status does not say why:\n%s", status)
			}
			if d := v.describe(t); d.Protected != c.view {
				t.Errorf("status --json: protected is %v", d.Protected)
			}
			code, doctor := v.code(t, "doctor", "--all")
			if strings.Contains(doctor, v.dir+" is protected") != c.view {
				t.Errorf("doctor says:\n%s", doctor)
			}
			if c.why != "" && (code != 1 || !strings.Contains(doctor, c.why)) {
				t.Errorf("doctor does not say why, exit code %d:\n%s", code, doctor)
			}
		})
	}
}

// `imgward who` tells facts: who has it, by the program's name, whatever the policy makes of that.
func TestWhoIsAFact(t *testing.T) {
	vmm := program(t, t.TempDir()+"/qemu-system-x86_64")
	for _, policy := range []string{"", "protect = \"never\"\n", "deny = [\"unlink\"]\n", "mode = \"audit\"\n", "trusted = [\"/*\", \"/*/*\"]\n", allAlways} {
		v := mount(t, fmt.Sprintf("vmm = [%q]\n", vmm)+policy)
		image, idle := v.image(t, "vm.img"), v.image(t, "idle.img")
		h := holdOpen(t, vmm, image)
		want := fmt.Sprintf("%s: qemu-system-x86_64, pid %d [view]\n", image, h.pid)
		if code, out := v.code(t, "who", image); code != 0 || out != want {
			t.Errorf("under %q: exit code %d, %s, want %s", policy, code, out, want)
		}
		if code, out := v.code(t, "who", idle); code != 1 || out != idle+": not in use\n" {
			t.Errorf("an idle one, under %q: exit code %d, %s", policy, code, out)
		}
		if status := v.run(t, "status", v.dir); !strings.Contains(status, fmt.Sprintf("qemu-system-x86_64, pid %d [view]", h.pid)) ||
			strings.Contains(status, "idle.img") {
			t.Errorf("status, under %q:\n%s", policy, status)
		}
	}
}

// lineOf is the first line that has a text in it.
func lineOf(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// domain has libvirt's status file say that a domain of this name runs as this process, with these elements.
func domain(t *testing.T, name string, pid int, devices string, os_ ...string) {
	t.Helper()
	file := "/run/libvirt/qemu/" + name + ".xml"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("<domstatus state='running' reason='booted' pid='%d'><domain type='kvm'><name>%s</name><os>%s</os><devices>%s</devices></domain></domstatus>",
		pid, name, strings.Join(os_, ""), devices)
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
}

func disk(file, target string) string {
	return fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='%s'/></disk>", file, target)
}

type finding struct{ Check, Level, What, Do string }

func (v *view) doctor(t *testing.T) (code int, list []finding) {
	t.Helper()
	code, out := v.code(t, "doctor", "--all", "--json")
	for line := range strings.Lines(out) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		list = append(list, f)
	}
	return code, list
}

// doctor says what is, and advises what helps.
func TestDoctorInventsNothing(t *testing.T) {
	bin := t.TempDir()
	vmm := program(t, bin+"/vmm")
	v := newView(t, fmt.Sprintf("vmm = [%q]\n", vmm))
	before := v.image(t, "before.img")
	holdOpen(t, vmm, before)
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })

	linked := filepath.Join(filepath.Dir(v.dir), "link")
	if err := os.Symlink(v.dir, linked); err != nil {
		t.Fatal(err)
	}
	v.image(t, "linked.img")
	outside := filepath.Join(filepath.Dir(v.dir), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string {
		path := filepath.Join(outside, name)
		if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	h := holdOpen(t, vmm, v.image(t, "after.img"))
	domain(t, "vm", h.pid, disk(linked+"/linked.img", "vda"), "<kernel>"+file("vmlinuz")+"</kernel><initrd>"+file("initrd")+"</initrd>",
		"<loader readonly='yes' type='pflash'>"+file("code.fd")+"</loader><nvram>"+file("vars.fd")+"</nvram>")

	code, list := v.doctor(t)
	for _, f := range list {
		if f.Level == "problem" && strings.Contains(f.What+f.Do, outside) {
			t.Errorf("no image: %+v", f)
		}
		if strings.Contains(f.What, "linked.img") {
			t.Errorf("it is protected: %+v", f)
		}
		if strings.Contains(f.What, "after.img") {
			t.Errorf("it was opened through the view: %+v", f)
		}
	}
	find := func(part string) *finding {
		for i := range list {
			if strings.Contains(list[i].What, part) {
				return &list[i]
			}
		}
		return nil
	}
	if f := find("before.img"); f == nil || f.Level != "note" || !strings.Contains(f.What, "before the view was mounted") {
		t.Errorf("opened before the mount: %+v", f)
	}
	if f := find(v.policy); f == nil || f.Check != "policy" {
		t.Errorf("the policy in force is not named: %+v", list)
	}
	if f := find("there is no /etc/imgward/policy.toml"); f != nil {
		t.Errorf("that file is not in force: %+v", f)
	}
	if code != 0 {
		for _, f := range list {
			if f.Level == "problem" {
				t.Errorf("exit code %d for %+v", code, f)
			}
		}
	}

	domain(t, "vm", h.pid, disk(linked+"/linked.img", "vda")+disk(file("disk.img"), "vdb"))
	code, list = v.doctor(t)
	if f := find(outside + "/disk.img"); f == nil || f.Level != "problem" || f.Do != "imgward mount "+outside || code != 1 {
		t.Errorf("a disk that nothing protects, exit code %d: %+v", code, f)
	}
}

// What cannot be read is said in sentences, and whom it concerns.
func TestUnreadableInWords(t *testing.T) {
	v := mount(t, "")
	image := v.image(t, "a.img")
	domain(t, "broken", os.Getpid(), "")
	if err := os.WriteFile("/run/libvirt/qemu/broken.xml", []byte("<domstatus"), 0o600); err != nil {
		t.Fatal(err)
	}
	const words = "the status file of domain broken cannot be read (/run/libvirt/qemu/broken.xml: "
	until(t, "it is noticed", func() bool {
		_, err := v.try(t, "who", image)
		return err == nil
	})
	if out := v.run(t, "who", image); !strings.Contains(out, image+": "+words) {
		t.Errorf("who: %s", out)
	}
	if line := lineOf(v.run(t, "status", v.dir), "[libvirt]"); !strings.HasPrefix(line, "  every image ") || !strings.Contains(line, words) {
		t.Errorf("status: %s", line)
	}
}

// Where there is nothing to show, that is said; and who leaves something out is told what there should be.
func TestNothingToShow(t *testing.T) {
	v := mount(t, "")
	v.image(t, "idle.img")
	for command, says := range map[string]string{"allow --list " + v.dir: "no exception is in force", "graph " + v.dir: "no image is in use"} {
		if out := v.run(t, strings.Fields(command)...); out != says+"\n" {
			t.Errorf("imgward %s says %q", command, out)
		}
	}
	for command, says := range map[string]string{"mount": "imgward mount [OPTION]… DIR", "who": "imgward who PATH…", "check truncate": "imgward check OP PATH", "policy bogus": `unknown command "bogus"`, "statsu": "did you mean status?"} {
		if code, out := v.code(t, strings.Fields(command)...); code != 2 || !strings.Contains(out, says) {
			t.Errorf("imgward %s: exit code %d: %s", command, code, out)
		}
	}
}

// What could not be said has not been done well: no command answers 0 where its output went nowhere.
func TestOutputIsLost(t *testing.T) {
	v := mount(t, allAlways)
	image := v.image(t, "x.img")
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"--help", "status", "status " + v.dir, "status --check " + v.dir, "events " + v.dir, "policy show",
		"allow --op write --for 1m --reason test " + image} {
		if code, out := sh(t, bin+" "+command+" >/dev/full"); code != 1 || !strings.Contains(out, "no space left") {
			t.Errorf("imgward %s >/dev/full: exit code %d: %s", command, code, out)
		}
	}
}
