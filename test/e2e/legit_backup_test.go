// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"imgward/test/harness"
)

// backedUp waits until a push backup has ended, and fails unless it succeeded.
func (g *guest) backedUp(t *testing.T) {
	t.Helper()
	harness.Until(t, "the backup is complete", func() bool {
		return !strings.Contains(g.Virsh(t, "domjobinfo").OK(t), "Backup")
	})
	if info := g.Virsh(t, "domjobinfo", "--completed").OK(t); !strings.Contains(info, "Completed") {
		t.Errorf("backup: %s", info)
	}
}

// backupPush has QEMU write a point-in-time copy, while the guest writes on.
func backupPush(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	account := g.Agent.Account(t, "vda")
	copied := h.Image("vm.backup")
	xml := h.WriteXML(t, "backup.xml", fmt.Sprintf(`<domainbackup mode='push'><disks>
		<disk name='vda' backup='yes' type='file'><target file='%s'/><driver type='qcow2'/></disk>
		</disks></domainbackup>`, copied))
	// Past the blocks of the account, which the copy must hold as they are now.
	g.Virsh(t, "backup-begin", xml).OK(t)
	g.Agent.Fill(t, "vda", 8*blocksPerMiB, blocksPerMiB)
	g.backedUp(t)
	h.CheckImage(t, copied, "qcow2", account)
	g.Finish(t, "vda", disk, "qcow2")
}

// backupPull exports the frozen disk over NBD; QEMU keeps the old contents of what is overwritten in a scratch file.
func backupPull(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	account := g.Agent.Account(t, "vda")
	socket := harness.Sockets + "/backup"
	xml := h.WriteXML(t, "backup.xml", fmt.Sprintf(`<domainbackup mode='pull'>
		<server transport='unix' socket='%s'/><disks>
		<disk name='vda' backup='yes' type='file'><scratch file='%s'/></disk>
		</disks></domainbackup>`, socket, h.Image("vm.scratch")))
	g.Virsh(t, "backup-begin", xml).OK(t)
	g.Agent.Fill(t, "vda", 0, 2*blocksPerMiB) // over what the export must go on showing
	copied := h.Image("vm.pulled")
	harness.Run(t, "nbdcopy", "nbd+unix:///vda?socket="+socket, copied).OK(t)
	g.Virsh(t, "domjobabort").OK(t)
	h.CheckImage(t, copied, "raw", account)
	g.Agent.Healthy(t, "vda")
	g.Finish(t, "vda", disk, "qcow2")
}

func backupIncremental(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.Virsh(t, "checkpoint-create-as", "monday").OK(t)
	g.Agent.Fill(t, "vda", 8*blocksPerMiB, blocksPerMiB)
	xml := h.WriteXML(t, "backup.xml", fmt.Sprintf(`<domainbackup mode='push'><incremental>monday</incremental><disks>
		<disk name='vda' backup='yes' type='file'><target file='%s'/><driver type='qcow2'/></disk>
		</disks></domainbackup>`, h.Image("vm.increment")))
	g.Virsh(t, "backup-begin", xml).OK(t)
	g.backedUp(t)
	g.Virsh(t, "checkpoint-delete", "monday").OK(t)
	g.Finish(t, "vda", disk, "qcow2")
	harness.Run(t, "qemu-img", "check", "-q", h.Image("vm.increment")).OK(t) // opens its backing file, the disk
}
