// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

func hotplug(t *testing.T, h *harness.Host, format string) {
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: h.Raw(t, "vm.img", 64*MiB)})
	image := h.Image("second")
	harness.Run(t, "qemu-img", "create", "-q", "-f", format, image, "64M").OK(t)
	disk := harness.Disk{Target: "vdb", File: image, Format: format}
	xml := h.WriteXML(t, "vdb.xml", disk.XML(t))
	for range 2 { // the second time the image has been in use before
		g.Virsh(t, "attach-device", "--live", xml).OK(t)
		g.waitDisk(t, "vdb", 64*MiB)
		g.Agent.Fill(t, "vdb", 0, blocksPerMiB)
		g.Agent.Healthy(t, "vdb")
		account := g.Agent.Account(t, "vdb")
		g.Virsh(t, "detach-device", "--live", xml).OK(t)
		harness.Until(t, "vdb is unplugged", func() bool {
			return !strings.Contains(g.Virsh(t, "domblklist").OK(t), "vdb")
		})
		h.CheckImage(t, image, format, account)
	}
	harness.Run(t, "dd", "if=/dev/zero", "of="+image, "bs=1M", "count=1").OK(t) // idle again: anybody's
}

// waitDisk waits until the guest sees a disk of a size.
func (g *guest) waitDisk(t *testing.T, disk string, size int64) {
	t.Helper()
	harness.Until(t, "the guest sees "+disk, func() bool {
		for _, d := range g.Agent.Do(t, wire.Request{Op: wire.OpDisks}).Disks {
			if d.Serial == disk && d.Bytes == size {
				return true
			}
		}
		return false
	})
}

func attachOff(t *testing.T, h *harness.Host) {
	d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: h.Raw(t, "vm.img", 8*MiB)}}})
	second := h.Raw(t, "second.img", 8*MiB)
	d.Virsh(t, "attach-disk", second, "vdb", "--config", "--targetbus", "virtio").OK(t)
	d.Start(t)
	if list := d.Virsh(t, "domblklist").OK(t); !strings.Contains(list, second) {
		t.Errorf("attached disk is not there:\n%s", list)
	}
	d.Virsh(t, "destroy").OK(t)
	d.Virsh(t, "detach-disk", "vdb", "--config").OK(t)
	if err := os.Remove(second); err != nil {
		t.Error(err)
	}
}

func mediaChange(t *testing.T, h *harness.Host) {
	first, second := h.Raw(t, "one.iso", 4*MiB), h.Raw(t, "other.iso", 4*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "sda", CDROM: true, File: first})
	want := g.Agent.Do(t, wire.Request{Op: wire.OpSum, Disk: "sr0", Blocks: blocksPerMiB}).Sum
	g.Virsh(t, "change-media", "sda", "--eject").OK(t)
	stillDefined(t, h, first)
	if err := os.Remove(first); err != nil {
		t.Errorf("an ejected medium is nobody's: %v", err)
	}
	g.Virsh(t, "change-media", "sda", second, "--insert").OK(t)
	harness.Until(t, "the guest reads the new medium", func() bool {
		reply, err := g.Agent.Try(wire.Request{Op: wire.OpSum, Disk: "sr0", Blocks: blocksPerMiB})
		return err == nil && reply.Sum != want
	})
	third := h.Raw(t, "third.iso", 4*MiB)
	g.Virsh(t, "change-media", "sda", third, "--update").OK(t)
	g.Virsh(t, "change-media", "sda", "--eject", "--force").OK(t)
}
