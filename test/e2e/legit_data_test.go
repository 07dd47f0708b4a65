// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"imgward/test/guest/block"
	"imgward/test/guest/wire"
	"imgward/test/harness"
)

// discard frees blocks in the guest; the holes must arrive in the images.
func discard(t *testing.T, h *harness.Host) {
	raw, qcow2 := h.Blank(t, "vm.img", 64*MiB), h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm",
		harness.Disk{Target: "vda", File: raw, Discard: "unmap"},
		harness.Disk{Target: "vdb", File: qcow2, Format: "qcow2", Discard: "unmap"})
	for disk, image := range map[string]string{"vda": raw, "vdb": qcow2} {
		g.Agent.Fill(t, disk, 0, 16*blocksPerMiB)
		before := h.Identify(t, image).Blocks
		g.Agent.Do(t, wire.Request{Op: wire.OpDiscard, Disk: disk, First: 4 * blocksPerMiB, Blocks: 8 * blocksPerMiB})
		freed := (before - h.Identify(t, image).Blocks) * 512
		if freed < 7*MiB {
			t.Errorf("%s: a discard of 8 MiB freed %d bytes of the image", disk, freed)
		}
	}
	g.Agent.Healthy(t, "vda", "vdb")
	g.Finish(t, "vda", raw, "raw")
}

// cacheModes gives one guest a disk for each combination of format, cache and io mode that QEMU accepts.
func cacheModes(t *testing.T, h *harness.Host) {
	var disks []harness.Disk
	for _, cache := range []string{"none", "writeback", "directsync", "writethrough", "unsafe"} {
		for _, io := range []string{"native", "threads", "io_uring"} {
			if io == "native" && cache != "none" && cache != "directsync" {
				continue // QEMU wants O_DIRECT for Linux AIO
			}
			format := []string{"raw", "qcow2"}[len(disks)%2]
			image := h.Image(fmt.Sprintf("%s-%s.%s", cache, io, format))
			harness.Run(t, "qemu-img", "create", "-q", "-f", format, image, "16M").OK(t)
			disks = append(disks, harness.Disk{
				Target: fmt.Sprintf("vd%c", 'a'+len(disks)), File: image, Format: format, Cache: cache, IO: io})
		}
	}
	g := boot(t, h, "vm", disks...) // which writes to each of them
	accounts := make([]*block.Account, len(disks))
	for i, disk := range disks {
		g.Agent.Healthy(t, disk.Target)
		accounts[i] = g.Agent.Account(t, disk.Target)
	}
	g.Shutdown(t)
	for i, disk := range disks {
		h.CheckImage(t, disk.File, disk.Format, accounts[i])
	}
}
