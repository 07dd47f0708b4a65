// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"

	"imgward/test/harness"
)

func internalSnapshot(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.Virsh(t, "snapshot-create-as", "before").OK(t)
	account := g.Agent.Account(t, "vda")
	g.Agent.Fill(t, "vda", 0, 2*blocksPerMiB)
	g.Virsh(t, "snapshot-revert", "before").OK(t)
	g.Agent.Ping(t)
	if now := g.Agent.Account(t, "vda"); now.Seq != account.Seq {
		t.Errorf("after the revert the guest has made %d writes, want the %d of the snapshot", now.Seq, account.Seq)
	}
	g.Agent.Healthy(t, "vda")
	g.Virsh(t, "snapshot-delete", "before").OK(t)
	g.Finish(t, "vda", disk, "qcow2")
}

// internalSnapshotOff makes libvirt run qemu-img on an idle image.
func internalSnapshotOff(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 16*MiB)
	d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk, Format: "qcow2"}}})
	d.Virsh(t, "snapshot-create-as", "off").OK(t)
	d.Start(t)
	d.Virsh(t, "destroy").OK(t)
	d.Virsh(t, "snapshot-revert", "off").OK(t)
	d.Virsh(t, "snapshot-delete", "off").OK(t)
	harness.Run(t, "qemu-img", "check", "-q", disk).OK(t)
}

func externalSnapshot(t *testing.T, h *harness.Host) {
	base := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: base, Discard: "unmap"})
	g.WhileWriting(t, "vda", func() {
		for _, name := range []string{"one", "two"} {
			g.Virsh(t, "snapshot-create-as", name, "--disk-only", "--atomic", "--no-metadata").OK(t)
		}
	})
	g.onTop(t, "vda", h.Image("vm.two"))
	g.Finish(t, "vda", h.Image("vm.two"), "qcow2")
}

// onTop checks which image is on top of a disk's chain.
func (g *guest) onTop(t *testing.T, disk, image string) {
	t.Helper()
	for _, line := range strings.Split(g.Virsh(t, "domblklist").OK(t), "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[0] == disk && f[1] != image {
			t.Errorf("%s is %s, want %s", disk, f[1], image)
		}
	}
}

// reuseExternal has libvirt take an overlay that the administrator made, with the options of their choice.
func reuseExternal(t *testing.T, h *harness.Host) {
	base := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: base, Format: "qcow2"})
	overlay := h.Image("mine.qcow2")
	harness.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", "-u", overlay, "64M").OK(t)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "snapshot-create-as", "mine", "--disk-only", "--reuse-external", "--no-metadata",
			"--diskspec", "vda,file="+overlay).OK(t)
	})
	g.Finish(t, "vda", overlay, "qcow2")
}

func memorySnapshot(t *testing.T, h *harness.Host) {
	base := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: base, Format: "qcow2"})
	memory := h.Image("vm.memory")
	g.Virsh(t, "snapshot-create-as", "full", "--live", "--memspec", "file="+memory+",snapshot=external",
		"--diskspec", "vda,snapshot=external").OK(t)
	if st, err := os.Stat(memory); err != nil || st.Size() < MiB {
		t.Errorf("no memory was saved: %v", err)
	}
	g.Agent.Fill(t, "vda", 0, blocksPerMiB)
	g.Agent.Healthy(t, "vda")
	g.Virsh(t, "snapshot-delete", "full", "--metadata").OK(t)
	g.Finish(t, "vda", h.Image("vm.full"), "qcow2")
}

// deleteExternal has libvirt (9.0 and later) merge and remove the overlay that a snapshot made.
func deleteExternal(t *testing.T, h *harness.Host) {
	base := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: base, Format: "qcow2"})
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "snapshot-create-as", "one", "--disk-only").OK(t)
		g.Virsh(t, "snapshot-create-as", "two", "--disk-only").OK(t)
		g.Virsh(t, "snapshot-delete", "one").OK(t)
		g.Virsh(t, "snapshot-delete", "two").OK(t)
	})
	top := strings.Fields(g.Virsh(t, "domblklist").OK(t))
	g.Finish(t, "vda", top[len(top)-1], "qcow2")
}
