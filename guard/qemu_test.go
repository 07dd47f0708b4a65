// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"imgward/guard/policy"
)

// qemu runs a real QEMU with a disk, paused before its first instruction.
func (h *host) qemu(img, options string) *process {
	h.t.Helper()
	cmd := exec.Command("qemu-system-x86_64", "-nodefaults", "-display", "none", "-qmp", "stdio", "-m", "16", "-S",
		"-machine", "q35", "-blockdev", "driver=raw,node-name=a,file.driver=file,file.filename="+img+options,
		"-device", "virtio-blk-pci,drive=a")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	h.must(err)
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start()) // `make deps` installs it
	p := &process{end: func() { cmd.Process.Kill(); cmd.Wait() }}
	h.t.Cleanup(p.end)
	io.WriteString(in, `{"execute": "qmp_capabilities"}`+"\n")
	for lines := bufio.NewScanner(out); !strings.Contains(lines.Text(), `"return"`); {
		if !lines.Scan() {
			h.t.Fatal("QEMU did not start")
		}
	}
	p.PID = cmd.Process.Pid
	return p
}

// A VM that nobody told libvirt of, and that was started before the view: by what it has open, and by its locks.
func TestRealQEMU(t *testing.T) {
	for name, tc := range map[string]struct {
		options  string
		evidence Evidence
	}{
		"writing":         {"", EvidenceLock},
		"reading":         {",read-only=on", EvidenceLock},
		"without locking": {",file.locking=off", EvidenceProcess},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			processes := policy.DefaultProcesses()
			h.config.Policy.Processes.VMMs = processes.VMMs
			img := h.image("vm.img")
			g := h.guard()
			dd := h.run("outsider")
			if v := g.Check(background, h.request(OpTruncate, img, dd)); !v.Allowed {
				t.Fatalf("nobody uses it: %s", v.Reason)
			}
			q := h.qemu(img, tc.options)
			if p := g.Classify(q.PID, 0); p.Class != ClassVMM {
				t.Errorf("QEMU is %+v", p)
			}
			v := g.Check(background, h.request(OpTruncate, img, dd))
			if v.Allowed || v.Uses[0].Evidence != tc.evidence || v.MayPass {
				t.Errorf("%+v", v)
			}
			found := false
			for _, u := range g.Who(background, &Request{Image: h.id(img), Open: Descriptor(func() (*os.File, error) { return os.Open(img) })}) {
				found = found || u.PID == q.PID && u.Evidence == EvidenceProcess && u.Path == img
			}
			if !found {
				t.Error("who does not name the process")
			}
			if len(g.InUse(background)[h.id(img)]) != 1 {
				t.Error("it is not among the images in use")
			}
			if v := g.Check(background, h.request(OpFallocate, img, q)); v.Allowed != (name != "reading") {
				t.Errorf("QEMU discards: %v, %s", v.Allowed, v.Reason)
			}
			q.end()
			if v := g.Check(background, h.request(OpTruncate, img, dd)); !v.Allowed {
				t.Errorf("QEMU has gone: %s", v.Reason)
			}
		})
	}
}
