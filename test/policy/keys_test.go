// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"imgward/test/harness"
)

// Each operation that a rule can deny, alone, and what people do that falls under it.
func TestDeny(t *testing.T) {
	me := program(t, t.TempDir()+"/me")
	under := map[string]string{
		"truncate": "truncate o_trunc o_path", "write": "write rdwr append proc-fd", "unlink": "unlink",
		"rename": "rename replace rename-dir", "set-flags": "chattr",
	}
	var text strings.Builder
	for denied := range under {
		fmt.Fprintf(&text, "[[rule]]\npaths = [\"%s/**\"]\nprotect = \"always\"\ndeny = [%q]\n", denied, denied)
	}
	v := mount(t, text.String())
	for denied := range under {
		for kind, ops := range under {
			for _, op := range strings.Fields(ops) {
				if denied == "write" && op == "o_trunc" {
					continue // opens for writing as well, and counts as what is worse
				}
				want := "ok"
				if kind == denied {
					want = "EBUSY"
				}
				if got := does(t, me, 0, op, v.image(t, denied+"/"+op+".img")); got != want {
					t.Errorf("%s where %q is denied: %s, want %s", op, denied, got, want)
				}
			}
		}
	}
}

// held is a process that has an image open for writing.
type held struct {
	in  io.WriteCloser
	out *bufio.Scanner
	pid int
	end func()
}

func holdOpen(t *testing.T, program, image string) *held {
	t.Helper()
	return start(t, exec.Command(program, image))
}

// start has a command hold what it is given, and say "ok" when it has it.
func start(t *testing.T, cmd *exec.Cmd) *held {
	t.Helper()
	cmd.Env = append(os.Environ(), callerEnv+"=hold")
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
	end := sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
	})
	t.Cleanup(end)
	h := &held{in: in, out: bufio.NewScanner(out), pid: cmd.Process.Pid, end: end}
	if got := h.says(t); got != "ok" {
		t.Fatalf("%s cannot hold it: %s", cmd, got)
	}
	return h
}

func (h *held) says(t *testing.T) string {
	t.Helper()
	if !h.out.Scan() {
		t.Fatal("it says nothing")
	}
	return h.out.Text()
}

func (h *held) write(t *testing.T) string {
	t.Helper()
	if _, err := h.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	return h.says(t)
}

// A process in a control group of the key vmm_cgroup is a VMM, whatever it executes.
func TestVMMCgroup(t *testing.T) {
	bin := t.TempDir()
	me, group := program(t, bin+"/me"), cgroup(t)
	v := mount(t, fmt.Sprintf("vmm_cgroup = [%q]\n", group.name))
	image := v.image(t, "vm.img")
	grouped := filepath.Join(bin, "grouped")
	if err := os.WriteFile(grouped, []byte("#!/bin/sh\necho $$ >"+group.dir+"/cgroup.procs && exec "+me+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	outside := holdOpen(t, me, image)
	for _, op := range []string{"truncate", "rename"} {
		if got := does(t, me, 0, op, image); got != "ok" {
			t.Errorf("%s while an outsider has it open: %s", op, got)
		}
	}
	outside.in.Close()
	inside := holdOpen(t, grouped, image)
	for _, op := range []string{"truncate", "rename"} {
		if got := does(t, me, 0, op, image); got != "EBUSY" {
			t.Errorf("%s while a VMM has it open: %s", op, got)
		}
	}
	if got := inside.write(t); got != "ok" {
		t.Errorf("the VMM's own write: %s", got)
	}
}

// Who is who, by the keys vmm, manager, trusted and trusted_cgroup.
func TestProcesses(t *testing.T) {
	bin := t.TempDir()
	vmm, manager, agent, me := program(t, bin+"/vmm"), program(t, bin+"/manager"), program(t, bin+"/agent"), program(t, bin+"/me")
	group := cgroup(t)
	v := mount(t, fmt.Sprintf("vmm = [\"default\", %q]\nmanager = [%q]\ntrusted = [%q]\ntrusted_cgroup = [%q]\n", vmm, bin+"/man*", agent, group.name))
	image := v.image(t, "vm.img")
	h := holdOpen(t, vmm, image)
	grouped := filepath.Join(bin, "grouped")
	if err := os.WriteFile(grouped, []byte("#!/bin/sh\necho $$ >"+group.dir+"/cgroup.procs && exec "+me+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, program, op, want string }{
		{"outsider", me, "truncate", "EBUSY"},
		{"outsider", me, "write", "EBUSY"},
		{"manager", manager, "truncate", "EBUSY"},
		{"manager", manager, "write", "ok"}, // its writes are judged one by one
		{"manager", manager, "rename", "EBUSY"},
		{"another VMM", vmm, "truncate", "EBUSY"},
		{"another VMM", vmm, "rdwr", "EBUSY"}, // nobody takes locks, which would keep the two apart
		{"trusted", agent, "truncate", "ok"},
		{"trusted", agent, "rename", "ok"},
		{"in a trusted control group", grouped, "truncate", "ok"},
	} {
		if got := does(t, c.program, 0, c.op, image); got != c.want {
			t.Errorf("%s by %s: %s, want %s", c.op, c.name, got, c.want)
		}
	}
	if got := h.write(t); got != "ok" {
		t.Errorf("the VMM's own write: %s", got)
	}
}

type group struct{ name, dir string }

// cgroup makes a control group of this test's own.
func cgroup(t *testing.T) group {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if before, after, _ := strings.Cut(line, " - "); strings.HasPrefix(after, "cgroup2 ") {
			own, err := os.ReadFile("/proc/self/cgroup")
			if err != nil {
				t.Fatal(err)
			}
			_, path, _ := strings.Cut(string(own[strings.LastIndex(string(own), "\n0::")+1:]), "0::")
			name := filepath.Join(strings.TrimSpace(path), fmt.Sprintf("imgward-policy-%d", os.Getpid()))
			g := group{name: name, dir: filepath.Join(strings.Fields(before)[4], name)}
			if err := os.Mkdir(g.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(g.dir) })
			return g
		}
	}
	t.Fatal("no cgroup2 is mounted")
	return group{}
}

// foreign_writer: who gives way when a VM starts on an image that somebody writes.
func TestForeignWriter(t *testing.T) {
	bin := t.TempDir()
	vmm, me := program(t, bin+"/vmm"), program(t, bin+"/me")
	v := mount(t, fmt.Sprintf("vmm = [%q]\n[[rule]]\npaths = [\"revoke/**\"]\nforeign_writer = \"revoke\"\n", vmm))
	for _, c := range []struct{ dir, vmm, writer string }{{"refuse", "EBUSY", "ok"}, {"revoke", "ok", "EBUSY"}} {
		image := v.image(t, c.dir+"/a.img")
		writer := holdOpen(t, me, image)
		if c.vmm == "ok" {
			holdOpen(t, vmm, image)
		} else if got := does(t, vmm, 0, "rdwr", image); got != c.vmm {
			t.Errorf("%s: the VMM gets %s, want %s", c.dir, got, c.vmm)
		}
		if got := writer.write(t); got != c.writer {
			t.Errorf("%s: the writer gets %s, want %s", c.dir, got, c.writer)
		}
	}
}

// protect = "defined": a persistent domain that is shut off, by libvirt's definition of it.
func TestDefined(t *testing.T) {
	bin := t.TempDir()
	me, manager := program(t, bin+"/me"), program(t, bin+"/manager")
	v := mount(t, "manager = [\""+manager+"\"]\nprotect = \"running\"\n[[rule]]\npaths = [\"defined/**\"]\nprotect = \"defined\"\n")
	definition := "<domain type='kvm'><name>off</name><devices>"
	for _, dir := range []string{"defined", "running"} {
		definition += "<disk type='file' device='disk'><source file='" + v.image(t, dir+"/off.img") + "'/><target dev='vda'/></disk>"
	}
	file := "/etc/libvirt/qemu/off.xml"
	if err := os.WriteFile(file, []byte(definition+"</devices></domain>"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	for path, want := range map[string]string{"defined/off.img": "EBUSY", "defined/other.img": "ok", "running/off.img": "ok"} {
		image := v.dir + "/" + path
		if strings.Contains(path, "other") {
			image = v.image(t, path)
		}
		for _, op := range []string{"o_trunc", "write", "rename", "unlink"} {
			if got := does(t, me, 0, op, image); got != want {
				t.Errorf("%s of %s: %s, want %s", op, path, got, want)
			}
		}
	}
	// libvirt works on domains that are shut off.
	for _, op := range []string{"truncate", "write", "rename"} {
		if got := does(t, manager, 0, op, v.dir+"/defined/off.img"); got != "ok" {
			t.Errorf("%s by a manager: %s", op, got)
		}
	}
	for dir, want := range map[string]string{"defined": "EBUSY", "running": "ok"} {
		if got := does(t, me, 0, "rename-dir", v.dir+"/"+dir+"/off.img"); got != want {
			t.Errorf("rename of %s: %s, want %s", dir, got, want)
		}
	}
}

// message: the operator's own words stand in the explanation.
func TestMessage(t *testing.T) {
	v := mount(t, allAlways+"message = \"see wiki/images \\u001b[31m\"\n")
	screen := harness.OnTerminal(t, "dd if=/dev/zero of="+v.image(t, "a.img")+" count=1")
	if !strings.Contains(screen, "imgward: refused: dd") || !strings.Contains(screen, "see wiki/images") || strings.Contains(screen, "\x1b") {
		t.Errorf("the terminal shows %q", screen)
	}
}
