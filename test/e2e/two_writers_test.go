// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"imgward/test/harness"
)

// hidden are writers of whom the view knows no handle, or no outsider's. Each script has the image open for writing,
// opens the FIFO, and ends when that does.
var hidden = []struct {
	name, script, comm string
	before             bool // it opens the image before the view is mounted
}{
	{"shared mapping, descriptor closed", mapping, "python3", false},
	{"shared mapping from before the view", mapping, "python3", true},
	{"dd from before the view", `exec dd of="$IMG" conv=notrunc bs=1k <"$FIFO"`, "dd", true},
	{"loop device from before the view", `loop=$(losetup -f --show "$IMG"); cat <"$FIFO"; losetup -d "$loop"`, "loop", true},
	{"vol-upload", `virsh -q vol-upload --pool images vm.img "$FIFO"`, "libvirt", false},
}

const mapping = `exec python3 -c '
import mmap, os
f = os.open(os.environ["IMG"], os.O_RDWR)
m = mmap.mmap(f, 4096)
os.close(f)
open(os.environ["FIFO"]).read()
m[0:1] = b"\0"'`

// TestTwoWritersHidden: a domain cannot start on a disk that somebody writes past the view's handles, either.
func TestTwoWritersHidden(t *testing.T) {
	for _, c := range hidden {
		t.Run(c.name, func(t *testing.T) {
			h := harness.New(t)
			if !c.before {
				h.Mount(t)
			}
			disk := h.Raw(t, "vm.img", 8*MiB)
			d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
			pool(t, h)
			fifo := filepath.Join(t.TempDir(), "fifo")
			harness.Run(t, "mkfifo", fifo).OK(t)
			writer := harness.Spawn(t, filepath.Join(h.Dir, "writer.log"), "env", "IMG="+disk, "FIFO="+fifo, "sh", "-c", c.script)
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if c.before {
				h.Mount(t)
			}
			if harness.Native() {
				d.Start(t) // two writers meet, and nobody says a word
			} else {
				d.Virsh(t, "start").Fails(t, c.comm)
			}
			w.Close()
			harness.Until(t, "the writer ends", func() bool { return !writer.Alive() })
			harness.WaitDetached(t, disk)
			if !harness.Native() {
				d.Start(t)
			}
			d.Virsh(t, "destroy").OK(t)
		})
	}
}
