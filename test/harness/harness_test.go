// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"testing"

	"imgward/test/guest/wire"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestGuest boots a guest, has it write, and finds its blocks in the image.
func TestGuest(t *testing.T) {
	h := New(t)
	disk := h.Qcow2(t, "disk.qcow2", 64*MiB)
	d := h.Run(t, Spec{Name: "guest", Guest: true, Disks: []Disk{{Target: "vda", File: disk, Format: "qcow2"}}})
	a := d.NewAgent(t)
	a.Fill(t, "vda", 0, 100)
	a.Do(t, wire.Request{Op: wire.OpStart, Disk: "vda", First: 1000, Blocks: 1000})
	Until(t, "the guest has written a little", func() bool {
		return a.Do(t, wire.Request{Op: wire.OpProgress, Disk: "vda"}).Progress.Fsyncs >= 20
	})
	p := a.Do(t, wire.Request{Op: wire.OpStop, Disk: "vda"}).Progress
	if p.Error != "" {
		t.Fatalf("guest's writer: %s", p.Error)
	}
	t.Logf("guest wrote: %+v", *p)
	a.Healthy(t, "vda")
	account := a.Account(t, "vda")
	d.Virsh(t, "shutdown", "--mode", "acpi").OK(t)
	d.WaitState(t, "shut off")
	h.CheckImage(t, disk, "qcow2", account)
}
