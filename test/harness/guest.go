// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"testing"

	"imgward/test/guest/block"
	"imgward/test/guest/wire"
)

// BlocksPerMiB is what a guest counts in.
const BlocksPerMiB = MiB / block.Size

// Guest is a running domain with an agent in it.
type Guest struct {
	*Domain
	Agent *Agent
}

// Boot runs a guest with these disks and has it write the first MiB of each but drives and shared ones.
func (h *Host) Boot(t testing.TB, name string, disks ...Disk) *Guest {
	t.Helper()
	d := h.Run(t, Spec{Name: name, Guest: true, Disks: disks})
	g := &Guest{d, d.NewAgent(t)}
	for _, disk := range disks {
		if !disk.CDROM && !disk.Shareable {
			g.Agent.Fill(t, disk.Target, 0, BlocksPerMiB)
		}
	}
	return g
}

// WhileWriting runs f while the guest writes all over the first 32 MiB of a disk with frequent fsyncs. The guest must have
// noticed nothing, and read back what it wrote.
func (g *Guest) WhileWriting(t testing.TB, disk string, f func()) {
	t.Helper()
	g.StartWriting(t, disk)
	g.Wrote(t, disk, 1)
	f()
	g.Wrote(t, disk, 2)
	g.StopWriting(t, disk)
	g.Agent.Healthy(t, disk)
}

// StartWriting starts a writer on the first 32 MiB of a disk.
func (g *Guest) StartWriting(t testing.TB, disk string) {
	t.Helper()
	g.Agent.Do(t, wire.Request{Op: wire.OpStart, Disk: disk, Blocks: 32 * BlocksPerMiB})
}

// StopWriting stops it and fails the test if it had met an error.
func (g *Guest) StopWriting(t testing.TB, disk string) *wire.Progress {
	t.Helper()
	p := g.Agent.Do(t, wire.Request{Op: wire.OpStop, Disk: disk}).Progress
	if p.Error != "" {
		t.Errorf("%s: guest's writer on %s stopped: %s", g.Name, disk, p.Error)
	}
	return p
}

// Wrote waits until the running writer has made that many more fsyncs.
func (g *Guest) Wrote(t testing.TB, disk string, fsyncs uint64) {
	t.Helper()
	progress := func() *wire.Progress {
		p := g.Agent.Do(t, wire.Request{Op: wire.OpProgress, Disk: disk}).Progress
		if p.Error != "" {
			t.Fatalf("%s: guest's writer on %s stopped: %s", g.Name, disk, p.Error)
		}
		return p
	}
	from := progress().Fsyncs
	Until(t, "the guest writes on", func() bool { return progress().Fsyncs >= from+fsyncs })
}

// Shutdown presses the power button and waits until the domain is off.
func (g *Guest) Shutdown(t testing.TB) {
	t.Helper()
	g.Virsh(t, "shutdown", "--mode", "acpi").OK(t)
	g.WaitState(t, "shut off")
}

// Finish shuts the guest down and checks that an image holds what the guest wrote to a disk.
func (g *Guest) Finish(t testing.TB, disk, image, format string) {
	t.Helper()
	account := g.Agent.Account(t, disk)
	g.Shutdown(t)
	g.host.CheckImage(t, image, format, account)
}
