// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"testing"
	"time"

	"imgward/test/guest/block"
	"imgward/test/harness"
)

// TestGuest: a guest that writes to disks of all kinds must not notice. Its own account is compared with what it reads,
// and with the images afterwards.
func TestGuest(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.New(t)
		v := h.Mount(t, opts...)
		disks := []harness.Disk{
			{Target: "vda", File: h.Blank(t, "none.img", 64*harness.MiB), Cache: "none"},
			{Target: "vdb", File: h.Blank(t, "writeback.img", 64*harness.MiB), Cache: "writeback"},
			{Target: "vdc", File: h.Qcow2(t, "none.qcow2", 64*harness.MiB), Format: "qcow2", Cache: "none", IO: "native"},
			{Target: "vdd", File: h.Qcow2(t, "writeback.qcow2", 64*harness.MiB), Format: "qcow2", Cache: "writeback"},
		}
		g := h.Boot(t, "vm", disks...)
		for _, d := range disks {
			g.StartWriting(t, d.Target)
		}
		whileKilling(t, v, func() { time.Sleep(*torture) })
		unharmed(t, h, g, disks)
	})
}

// unharmed stops the writers and checks disks and images against the guest's accounts.
func unharmed(t *testing.T, h *harness.Host, g *harness.Guest, disks []harness.Disk) {
	t.Helper()
	accounts := make([]*block.Account, len(disks))
	for i, d := range disks {
		g.Wrote(t, d.Target, 2) // it goes on
		p := g.StopWriting(t, d.Target)
		t.Logf("%s (%s, %s): %d writes, %d fsyncs, the slowest took %d ms", d.Target, d.Type(), d.Cache, p.Writes, p.Fsyncs, p.WorstMS)
		g.Agent.Healthy(t, d.Target)
		accounts[i] = g.Agent.Account(t, d.Target)
	}
	g.Shutdown(t)
	for i, d := range disks {
		h.CheckImage(t, d.File, d.Type(), accounts[i])
	}
}
