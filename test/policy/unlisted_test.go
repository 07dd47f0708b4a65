// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/test/need"
)

// kvmMachine opens its argument, and holds a KVM machine (KVM_CREATE_VM) until its input ends.
const kvmMachine = `
import fcntl, os, sys
image = open(sys.argv[1], "r+b")
vm = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xae01, 0)
print("ok", flush=True)
sys.stdin.read()`

// doctor names the VMMs that are on no list, in whatever namespaces, with what they have open of the view; and nobody else.
func TestDoctorListsUnlistedVMMs(t *testing.T) {
	bin, group := t.TempDir(), cgroup(t)
	listed, me := program(t, bin+"/vmm"), program(t, bin+"/me")
	v := mount(t, fmt.Sprintf("vmm = [%q]\nvmm_cgroup = [%q]\n", listed, group.name))
	grouped := filepath.Join(bin, "grouped")
	cloud := program(t, bin+"/group/cloud-hypervisor")
	if err := os.WriteFile(grouped, []byte("#!/bin/sh\necho $$ >"+group.dir+"/cgroup.procs && exec "+cloud+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		program string
		args    []string
		flags   uintptr
		want    bool
	}{
		{program: program(t, bin+"/opt/kata/bin/cloud-hypervisor"), want: true},
		{program: program(t, bin+"/jail/firecracker"), flags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, want: true},
		{program: "python3", args: []string{"-c", kvmMachine}, want: true},
		{program: listed}, {program: grouped}, {program: me},
	} {
		t.Run(filepath.Base(c.program), func(t *testing.T) {
			if c.program == "python3" {
				need.KVM(t)
			}
			image := v.image(t, fmt.Sprintf("vm%d.img", i))
			cmd := exec.Command(c.program, append(c.args, image)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: c.flags}
			h := start(t, cmd)
			var notes []string
			_, list := v.doctor(t)
			for _, f := range list {
				if f.Check == "vmms" && f.Level == "note" && strings.Contains(f.What, fmt.Sprintf("(pid %d)", h.pid)) {
					notes = append(notes, f.What)
				}
			}
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", h.pid))
			if err != nil {
				t.Fatal(err)
			}
			says := fmt.Sprintf("%s (pid %d) is a VMM that no list of the policy names; it has %s open", filepath.Base(exe), h.pid, image)
			switch {
			case !c.want && len(notes) > 0:
				t.Errorf("%s is on a list, or no VMM: %q", c.program, notes)
			case c.want && (len(notes) != 1 || notes[0] != says):
				t.Errorf("doctor does not say that %s, but %q", says, notes)
			}
		})
	}
}
