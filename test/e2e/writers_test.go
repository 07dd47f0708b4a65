// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestTwoWriters: a domain cannot start on a disk that somebody else is writing, is told who it is, and starts the moment
// that one is gone.
func TestTwoWriters(t *testing.T) {
	h := harness.New(t)
	h.Mount(t)
	for _, c := range []struct{ name, script, comm string }{
		{"dd running", `exec dd of="$IMG" conv=notrunc bs=1k <"$FIFO"`, "dd"},
		{"loop device", `loop=$(losetup -f --show "$IMG"); trap 'losetup -d "$loop"; exit' TERM; cat <"$FIFO" & wait`, ""},
		{"append in a shell", `exec 3>>"$IMG"; trap exit TERM; cat <"$FIFO" & wait`, "sh"},
	} {
		t.Run(c.name, func(t *testing.T) { twoWriters(t, h, c.script, c.comm) })
	}
}

func twoWriters(t *testing.T, h *harness.Host, script, comm string) {
	disk := h.Raw(t, "vm.img", 8*MiB)
	defer os.Remove(disk)
	d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	fifo := filepath.Join(t.TempDir(), "fifo")
	harness.Run(t, "mkfifo", fifo).OK(t)
	writer := harness.Spawn(t, filepath.Join(h.Dir, "writer.log"), "env", "IMG="+disk, "FIFO="+fifo, "sh", "-c", script)
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns when the script reads: it has the image open by then
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if harness.Native() {
		d.Virsh(t, "start").OK(t) // two writers meet, and nobody says a word
		d.Virsh(t, "destroy").OK(t)
		writer.Stop(t)
		return
	}
	d.Virsh(t, "start").Fails(t, comm)
	if got := d.Virsh(t, "start"); !strings.Contains(got.Stderr, "busy") {
		t.Errorf("virsh start says nothing of a busy disk: %s", got.Stderr)
	}
	w.Close()
	writer.Stop(t)
	harness.WaitDetached(t, disk)
	d.Start(t)
	d.Virsh(t, "destroy").OK(t)
}

// TestStartedBefore: a domain that was running before the view came has its disk open directly, and is protected.
func TestStartedBefore(t *testing.T) {
	h := harness.New(t)
	disk := h.Raw(t, "vm.img", 64*MiB)
	overlay := h.Overlay(t, "over.qcow2", h.Raw(t, "base.img", 64*MiB), "raw")
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk}, harness.Disk{Target: "vdb", File: overlay, Format: "qcow2"})
	v := h.Mount(t)
	if !harness.Native() {
		for _, image := range []string{disk, overlay, h.Image("base.img")} {
			harness.Run(t, "dd", "if=/dev/zero", "of="+image, "count=1").Fails(t, "Device or resource busy")
			harness.Run(t, "rm", "-f", image).Fails(t, "Device or resource busy")
		}
		if uses := v.InUse(t)["vm.img"]; len(uses) == 0 || uses[0].Domain != "vm" {
			t.Errorf("status: vm.img is used by %+v", uses)
		}
	}
	unhindered(t, v, func() {
		g.WhileWriting(t, "vda", func() {
			g.Virsh(t, "snapshot-create-as", "later", "--disk-only", "--no-metadata").OK(t)
			g.Virsh(t, "blockcommit", "vda", "--active", "--wait", "--pivot").OK(t)
			g.Virsh(t, "suspend").OK(t)
			g.Virsh(t, "resume").OK(t)
		})
		g.Finish(t, "vda", disk, "raw")
		g.Start(t) // now through the view
		g.Finish(t, "vda", disk, "raw")
	})
}
