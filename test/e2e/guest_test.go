package e2e

import (
	"testing"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

// MiB is 2^20 bytes, blocks per MiB what a guest counts in.
const (
	MiB          = harness.MiB
	blocksPerMiB = MiB / 4096
)

// guest is a running domain with an agent in it.
type guest struct {
	*harness.Domain
	agent *harness.Agent
}

// boot runs a guest with these disks and has it write the first MiB of each but drives.
func boot(t *testing.T, h *harness.Host, name string, disks ...harness.Disk) *guest {
	t.Helper()
	d := h.Run(t, harness.Spec{Name: name, Guest: true, Disks: disks})
	g := &guest{d, d.Agent(t)}
	for _, disk := range disks {
		if !disk.CDROM && !disk.Shareable {
			g.agent.Fill(t, disk.Target, 0, blocksPerMiB)
		}
	}
	return g
}

// whileWriting runs f while the guest writes all over the first 32 MiB of a disk with frequent fsyncs. The guest must
// have noticed nothing, and read back what it wrote.
func (g *guest) whileWriting(t *testing.T, disk string, f func()) {
	t.Helper()
	g.agent.Do(t, wire.Request{Op: wire.OpStart, Disk: disk, Blocks: 32 * blocksPerMiB})
	g.wrote(t, disk, 1)
	f()
	g.wrote(t, disk, 2)
	p := g.agent.Do(t, wire.Request{Op: wire.OpStop, Disk: disk}).Progress
	if p.Error != "" {
		t.Errorf("guest's writer stopped: %s", p.Error)
	}
	g.agent.Healthy(t, disk)
}

// wrote waits until the running writer has made that many more fsyncs.
func (g *guest) wrote(t *testing.T, disk string, fsyncs uint64) {
	t.Helper()
	progress := func() *wire.Progress {
		return g.agent.Do(t, wire.Request{Op: wire.OpProgress, Disk: disk}).Progress
	}
	from := progress()
	harness.Until(t, "the guest writes on", func() bool {
		now := progress()
		if now.Error != "" {
			t.Fatalf("guest's writer stopped: %s", now.Error)
		}
		return now.Fsyncs >= from.Fsyncs+fsyncs
	})
}

// shutdown presses the power button and waits until the domain is off.
func (g *guest) shutdown(t *testing.T) {
	t.Helper()
	g.Virsh(t, "shutdown", "--mode", "acpi").OK(t)
	g.WaitState(t, "shut off")
}

// finish shuts the guest down and checks that an image holds what the guest wrote to a disk.
func (g *guest) finish(t *testing.T, h *harness.Host, disk, image, format string) {
	t.Helper()
	account := g.agent.Account(t, disk)
	g.shutdown(t)
	h.CheckImage(t, image, format, account)
}
