// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Whether a process is a VMM is evidence, so the test is wide: a container's QEMU, one in /opt, a jailed firecracker whose
// executable is "/firecracker", a program that nobody has heard of and that holds a KVM machine.

// namedVMM says whether a process is a VMM by what its executable is called or listed as, in whatever mount namespace,
// or by its control group.
func (c *Classifier) namedVMM(tid int, exe string) bool {
	exe = strings.TrimSuffix(exe, deletedSuffix)
	return exe != "" && (matchesAny(c.VMMNames, filepath.Base(exe)) || matchesAny(c.VMMs, exe)) ||
		c.FS.inCgroup(tid, c.VMMCgroups)
}

// RunsVM says whether a process is a VMM, also when that shows only by the virtual machine that it holds. It looks at all
// its descriptors; what it finds is remembered.
func (c *Classifier) RunsVM(p Process) (is bool) {
	if p.Kind != Outsider {
		return p.Kind == VMM
	}
	_, _ = walk(context.Background(), &c.walker, []int{p.PID}, func(_ int, found func(bool) bool) {
		found(c.runsVM(p))
	}, func(runs bool) bool {
		is = runs
		return true
	})
	return is
}

// runsVM is RunsVM for a walk.
func (c *Classifier) runsVM(p Process) bool {
	if p.Kind == Outsider && c.FS.holdsVM(p.PID) {
		c.MarkVMM(p)
		return true
	}
	return p.Kind == VMM
}

// MarkVMM notes that a process is a VMM by other evidence: until it executes another program.
func (c *Classifier) MarkVMM(p Process) {
	if p.Kind != Trusted {
		c.vmms.add(&p)
	}
}

// kvmVM is what the kernel calls the descriptor of a virtual machine (kvm_dev_ioctl_create_vm, virt/kvm/kvm_main.c).
const kvmVM = "anon_inode:kvm-vm"

// holdsVM says whether a process has a KVM machine.
func (f FS) holdsVM(pid int) bool {
	dir, err := os.Open(f.path(pid, "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	var target [len(kvmVM) + 1]byte
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, target[:])
		if err == nil && string(target[:n]) == kvmVM {
			return true
		}
	}
	return false
}
