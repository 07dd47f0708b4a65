// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// dynamicOwnership: libvirt gives a disk to QEMU's user, remembers the owner in xattrs, and gives it back.
func dynamicOwnership(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 8*MiB)
	owner := func() string { return harness.Run(t, "stat", "-c", "%U", disk).OK(t) }
	xattrs := func() string { return harness.Run(t, "getfattr", "-d", "-m", "trusted.libvirt", disk).OK(t) }
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	if owner() != "libvirt-qemu" || !strings.Contains(xattrs(), "trusted.libvirt.security.dac") {
		t.Errorf("running: owner %s, xattrs %q", owner(), xattrs())
	}
	d.Virsh(t, "destroy").OK(t)
	if owner() != "root" || xattrs() != "" {
		t.Errorf("stopped: owner %s, xattrs %q", owner(), xattrs())
	}
}

// appArmor: where the host confines QEMU, it does so here, and the domain starts all the same.
func appArmor(t *testing.T, h *harness.Host) {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || enabled[0] != 'Y' {
		need.Kernel(t, "AppArmor, or has it switched off (CONFIG_SECURITY_APPARMOR, and apparmor among lsm=)")
	}
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: h.Raw(t, "vm.img", 8*MiB)}}})
	if xml := d.Virsh(t, "dumpxml").OK(t); !strings.Contains(xml, "model='apparmor'") {
		t.Errorf("QEMU is not confined:\n%s", xml)
	}
}

func shareable(t *testing.T, h *harness.Host) {
	disk := harness.Disk{Target: "vda", File: h.Raw(t, "shared.img", 64*MiB), Cache: "none", Shareable: true}
	one, two := boot(t, h, "one", disk), boot(t, h, "two", disk)
	one.Agent.Fill(t, "vda", 0, blocksPerMiB)
	two.Agent.Fill(t, "vda", 8*blocksPerMiB, blocksPerMiB)
	one.Agent.Healthy(t, "vda")
	two.Agent.Healthy(t, "vda")
	account := two.Agent.Account(t, "vda")
	two.Shutdown(t)
	one.Finish(t, "vda", disk.File, "raw")
	h.CheckImage(t, disk.File, "raw", account)
}

// lockedOut: that a second domain cannot start on a disk is QEMU's own doing, by locks that must work across the view.
func lockedOut(t *testing.T, h *harness.Host) {
	disks := []harness.Disk{{Target: "vda", File: h.Qcow2(t, "vm.qcow2", 8*MiB), Format: "qcow2"}}
	h.Run(t, harness.Spec{Name: "one", Disks: disks})
	two := h.Define(t, harness.Spec{Name: "two", Disks: disks})
	two.Virsh(t, "start").Fails(t, `Failed to get "write" lock`)
	harness.Run(t, "qemu-img", "info", disks[0].File).Fails(t, `Failed to get shared "write" lock`)
}

func sharedBacking(t *testing.T, h *harness.Host) {
	golden := h.Raw(t, "golden.img", 64*MiB)
	before := h.Identify(t, golden)
	for _, name := range []string{"one", "two"} {
		overlay := h.Overlay(t, name+".qcow2", golden, "raw")
		g := boot(t, h, name, harness.Disk{Target: "vda", File: overlay, Format: "qcow2"})
		g.Agent.Healthy(t, "vda")
		defer g.Finish(t, "vda", overlay, "qcow2")
	}
	if now := h.Identify(t, golden); now.Sum != before.Sum {
		t.Error("the shared backing file has changed")
	}
}

// transient: libvirt puts an overlay over the disk at the start and removes it at the end.
func transient(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	before := h.Identify(t, disk)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Transient: true})
	g.Agent.Healthy(t, "vda")
	if left, _ := filepath.Glob(h.Image("*TRANSIENT*")); len(left) != 1 {
		t.Errorf("overlays of the running domain: %v, want one", left)
	}
	g.Shutdown(t)
	if left, _ := filepath.Glob(h.Image("*TRANSIENT*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if now := h.Identify(t, disk); now.Sum != before.Sum {
		t.Error("a transient disk has changed")
	}
}

// otherVMMs write to images without libvirt, as nbdkit-like servers and backup tools do.
func otherVMMs(t *testing.T, h *harness.Host) {
	disk, copied := h.Raw(t, "vm.img", 8*MiB), h.Blank(t, "copy.img", 8*MiB)
	socket := filepath.Join(h.Dir, "nbd")
	nbd := harness.Spawn(t, filepath.Join(h.Dir, "nbd.log"), "qemu-nbd", "-t", "-f", "raw", "-k", socket, copied)
	listening(t, socket)
	harness.Run(t, "nbdcopy", disk, "nbd+unix:///?socket="+socket).OK(t)
	nbd.Stop(t)
	sameSum(t, h, "vm.img", "copy.img")

	socket += "2"
	qsd := harness.Spawn(t, filepath.Join(h.Dir, "qsd.log"), "qemu-storage-daemon",
		"--blockdev", "file,node-name=disk,filename="+disk,
		"--nbd-server", "addr.type=unix,addr.path="+socket,
		"--export", "nbd,id=e,node-name=disk,writable=on")
	listening(t, socket)
	harness.Run(t, "nbdcopy", h.Raw(t, "other.img", 8*MiB), "nbd+unix:///disk?socket="+socket).OK(t)
	qsd.Stop(t)
	sameSum(t, h, "vm.img", "other.img")
	if err := os.Remove(disk); err != nil {
		t.Errorf("idle again, but: %v", err)
	}
}

func listening(t *testing.T, socket string) {
	t.Helper()
	harness.Until(t, socket+" is there", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
}
