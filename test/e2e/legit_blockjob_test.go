// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"testing"

	"imgward/test/harness"
)

// chain boots a guest on top of base.qcow2 ← middle.qcow2 ← top.qcow2, each written to by an earlier run of it.
func chain(t *testing.T, h *harness.Host) *guest {
	t.Helper()
	base := h.Qcow2(t, "base.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: base, Format: "qcow2"})
	for i, overlay := range []string{"middle.qcow2", "top.qcow2"} {
		g.Virsh(t, "snapshot-create-as", overlay, "--disk-only", "--no-metadata",
			"--diskspec", "vda,file="+h.Image(overlay)).OK(t)
		g.Agent.Fill(t, "vda", uint64(i+1)*blocksPerMiB/2, blocksPerMiB)
	}
	return g
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s should be gone: %v", path, err)
	}
}

// commitMiddle merges middle into base, under a running guest.
func commitMiddle(t *testing.T, h *harness.Host, flags ...string) {
	g := chain(t, h)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcommit", append([]string{"vda", "--wait",
			"--top", h.Image("middle.qcow2"), "--base", h.Image("base.qcow2")}, flags...)...).OK(t)
	})
	if len(flags) > 0 {
		gone(t, h.Image("middle.qcow2"))
	} else if err := os.Remove(h.Image("middle.qcow2")); err != nil {
		t.Errorf("merged and out of the chain, but: %v", err)
	}
	g.Finish(t, "vda", h.Image("top.qcow2"), "qcow2")
}

// commitActive merges everything into base and goes on there.
func commitActive(t *testing.T, h *harness.Host, flags ...string) {
	g := chain(t, h)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcommit", append([]string{"vda", "--active", "--wait", "--pivot"}, flags...)...).OK(t)
	})
	g.onTop(t, "vda", h.Image("base.qcow2"))
	if len(flags) > 0 {
		gone(t, h.Image("top.qcow2"))
	}
	g.Finish(t, "vda", h.Image("base.qcow2"), "qcow2")
}

func commitAbort(t *testing.T, h *harness.Host) {
	g := chain(t, h)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcommit", "vda", "--active", "--wait").OK(t)
		g.Virsh(t, "blockjob", "vda", "--abort").OK(t)
	})
	g.onTop(t, "vda", h.Image("top.qcow2"))
	g.Finish(t, "vda", h.Image("top.qcow2"), "qcow2")
}

// pull copies what is below into the top image; base stays below it if named.
func pull(t *testing.T, h *harness.Host, base string) {
	g := chain(t, h)
	args := []string{"vda", "--wait"}
	if base != "" {
		args = append(args, "--base", h.Image(base))
	}
	g.WhileWriting(t, "vda", func() { g.Virsh(t, "blockpull", args...).OK(t) })
	if err := os.Remove(h.Image("middle.qcow2")); err != nil {
		t.Errorf("pulled and out of the chain, but: %v", err)
	}
	g.Finish(t, "vda", h.Image("top.qcow2"), "qcow2")
}

func copyPivot(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	target := h.Image("copy.qcow2")
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcopy", "vda", target, "--format", "qcow2", "--wait", "--pivot", "--transient-job").OK(t)
	})
	if err := os.Remove(disk); err != nil {
		t.Errorf("pivoted away from, but: %v", err)
	}
	g.Finish(t, "vda", target, "qcow2")
}

func copyAbort(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	target := h.Image("copy.qcow2")
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcopy", "vda", target, "--wait", "--transient-job").OK(t)
		g.Virsh(t, "blockjob", "vda", "--abort").OK(t)
		if err := os.Remove(target); err != nil {
			t.Errorf("no mirror any more, but: %v", err)
		}
	})
	g.Finish(t, "vda", disk, "qcow2")
}

// copyReuse mirrors into an image that the administrator made, and leaves it as a copy.
func copyReuse(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	target := h.Blank(t, "copy.img", 64*MiB)
	g.Virsh(t, "blockcopy", "vda", target, "--format", "raw", "--reuse-external", "--wait", "--finish",
		"--transient-job").OK(t)
	h.CheckImage(t, target, "raw", g.Agent.Account(t, "vda"))
	g.Finish(t, "vda", disk, "raw")
}

func blockResize(t *testing.T, h *harness.Host) {
	raw, qcow2 := h.Raw(t, "vm.img", 64*MiB), h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: raw}, harness.Disk{Target: "vdb", File: qcow2, Format: "qcow2"})
	g.WhileWriting(t, "vda", func() {
		for _, disk := range []string{"vda", "vdb"} {
			g.Virsh(t, "blockresize", disk, "96M").OK(t)
			g.waitDisk(t, disk, 96*MiB)
		}
	})
	g.Agent.Fill(t, "vdb", 90*blocksPerMiB, 10) // in the new part
	g.Agent.Healthy(t, "vdb")
	g.Finish(t, "vda", raw, "raw")
}
