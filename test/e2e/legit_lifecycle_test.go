// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

func startShutdown(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	g.Finish(t, "vda", disk, "raw")
	g.Start(t) // once more on what the first run left
	g.Finish(t, "vda", disk, "raw")
}

func reboot(t *testing.T, h *harness.Host) {
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: h.Qcow2(t, "vm.qcow2", 64*MiB), Format: "qcow2"})
	pid := g.PID(t)
	g.Virsh(t, "reboot", "--mode", "acpi").OK(t)
	g.bootedAgain(t)
	if now := g.PID(t); now != pid {
		t.Errorf("QEMU's pid is %d, was %d: a reboot keeps the process", now, pid)
	}
}

func reset(t *testing.T, h *harness.Host) {
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: h.Qcow2(t, "vm.qcow2", 64*MiB), Format: "qcow2"})
	g.Virsh(t, "reset").OK(t)
	g.bootedAgain(t)
}

// bootedAgain waits for an agent that has written nothing yet: boot made the one before it write.
func (g *guest) bootedAgain(t *testing.T) {
	t.Helper()
	harness.Until(t, "the guest has booted again", func() bool {
		reply, err := g.Agent.TryFor(3*time.Second, wire.Request{Op: wire.OpAccount, Disk: "vda"})
		return err == nil && reply.Account.Seq == 0
	})
	g.Agent.Fill(t, "vda", 0, blocksPerMiB)
	g.Agent.Healthy(t, "vda")
}

// destroyWriting pulls the plug: all that was durable must be there, and the image idle at once.
func destroyWriting(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2", Cache: "none"})
	g.Agent.Do(t, wire.Request{Op: wire.OpStart, Disk: "vda", Blocks: 32 * blocksPerMiB})
	g.Wrote(t, "vda", 5)
	account := g.Agent.Account(t, "vda")
	// What was issued after the account was taken is not in it: allow any later write.
	for lba, span := range account.Blocks {
		span.Latest = ^uint64(0)
		account.Blocks[lba] = span
	}
	g.Virsh(t, "destroy").OK(t)
	h.CheckImage(t, disk, "qcow2", account)
}

func suspendResume(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "suspend").OK(t)
		g.Virsh(t, "resume").OK(t)
	})
	g.Finish(t, "vda", disk, "raw")
}

func managedSave(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.Virsh(t, "managedsave").OK(t)
	g.WaitState(t, "shut off")
	g.Start(t)
	g.Agent.Healthy(t, "vda") // the account came back with the guest's memory
	g.Finish(t, "vda", disk, "qcow2")
}

// saveRestore saves the guest's memory beside its disk, through the view.
func saveRestore(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	state := filepath.Join(h.Images, "vm.save")
	g.Virsh(t, "save", state).OK(t)
	h.Virsh(t, "restore", state).OK(t)
	g.Agent.Ping(t)
	g.Agent.Healthy(t, "vda")
	g.Finish(t, "vda", disk, "raw")
}
