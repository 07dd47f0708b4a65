// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// nvram: firmware in the directory of images, and its variables, which libvirt makes of a template at the first start.
func nvram(t *testing.T, h *harness.Host) {
	code, template := h.Raw(t, "code.fd", MiB), h.Raw(t, "template.fd", MiB)
	harness.Run(t, "chmod", "644", code, template).OK(t) // libvirt relabels no firmware
	disk, vars := h.Raw(t, "vm.img", 8*MiB), h.Image("vars.fd")
	xml := fmt.Sprintf(`<domain type='qemu'><name>vm</name><memory unit='MiB'>64</memory><os>
		<type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>%s</loader>
		<nvram template='%s'>%s</nvram></os><features><acpi/></features><devices>
		<emulator>/usr/bin/qemu-system-x86_64</emulator><disk type='file' device='disk'><driver name='qemu' type='raw'/>
		<source file='%s'/><target dev='vda' bus='virtio'/></disk></devices></domain>`, code, template, vars, disk)
	h.Virsh(t, "define", h.WriteXML(t, "nvram.xml", xml)).OK(t)
	t.Cleanup(func() { h.Virsh(t, "destroy", "vm"); h.Virsh(t, "undefine", "vm", "--nvram") })
	for range 2 {
		h.Virsh(t, "start", "vm").OK(t)
		for _, image := range []string{code, vars, disk} {
			harness.Run(t, harness.Imgward(), "who", image).OK(t)
		}
		h.Virsh(t, "destroy", "vm").OK(t)
	}
	h.Virsh(t, "start", "vm", "--reset-nvram").OK(t)
	h.Virsh(t, "destroy", "vm").OK(t)
	h.Virsh(t, "undefine", "vm", "--nvram", "--remove-all-storage").OK(t)
	gone(t, vars)
}

// coreDump has QEMU and libvirt write the guest's memory into the directory of images.
func coreDump(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	for _, flags := range [][]string{{"--memory-only"}, {"--live"}} {
		file := h.Image("vm.core")
		g.Virsh(t, "dump", append([]string{file}, flags...)...).OK(t)
		must(t, os.Remove(file))
	}
	g.Finish(t, "vda", disk, "raw")
}

func managedSaveRemove(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.Virsh(t, "managedsave").OK(t)
	g.Virsh(t, "managedsave-remove").OK(t)
	harness.Run(t, "qemu-img", "check", "-q", disk).OK(t)
	stillDefined(t, h, disk)
	harness.Run(t, "qemu-img", "resize", "-q", disk, "128M").OK(t) // nobody's again
}

func pullAbort(t *testing.T, h *harness.Host) {
	g := chain(t, h)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockpull", "vda", "--bandwidth", "1").OK(t)
		g.Virsh(t, "blockjob", "vda", "--abort") // fails if it was done by then
	})
	g.Finish(t, "vda", h.Image("top.qcow2"), "qcow2")
}

// shallow works on the top of the chain alone.
func shallow(t *testing.T, h *harness.Host) {
	g := chain(t, h)
	g.WhileWriting(t, "vda", func() {
		g.Virsh(t, "blockcommit", "vda", "--shallow", "--active", "--wait", "--pivot").OK(t)
		g.Virsh(t, "blockcopy", "vda", h.Image("copy.qcow2"), "--shallow", "--wait", "--pivot", "--transient-job").OK(t)
	})
	if err := os.Remove(h.Image("middle.qcow2")); err != nil {
		t.Errorf("copied and pivoted away from, but: %v", err)
	}
	g.Finish(t, "vda", h.Image("copy.qcow2"), "qcow2")
}

// TestLockDaemon: with virtlockd, which keeps each disk open for writing, to hold a lock on it for as long as its domain
// runs. That is no second writer.
func TestLockDaemon(t *testing.T) {
	h := harness.NewFiles(t)
	conf := map[string]string{"qemu.conf": `lock_manager = "lockd"`, "qemu-lockd.conf": `auto_disk_leases = 1`}
	for name, text := range conf {
		must(t, os.WriteFile(filepath.Join("/etc/libvirt", name), []byte(text+"\n"), 0o644))
		defer os.Remove(filepath.Join("/etc/libvirt", name))
	}
	harness.Spawn(t, filepath.Join(h.Dir, "virtlockd.log"), "virtlockd")
	h.StartLibvirt(t)
	v := h.Mount(t)
	unhindered(t, v, func() {
		disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
		g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
		g.WhileWriting(t, "vda", func() {
			g.Virsh(t, "snapshot-create-as", "one", "--disk-only", "--no-metadata").OK(t)
			g.Virsh(t, "blockcommit", "vda", "--active", "--wait", "--pivot").OK(t)
			g.Virsh(t, "suspend").OK(t)
			g.Virsh(t, "resume").OK(t)
		})
		two := h.Define(t, harness.Spec{Name: "two", Disks: []harness.Disk{{Target: "vda", File: disk, Format: "qcow2"}}})
		if r := two.Virsh(t, "start"); r.Exit == 0 || !strings.Contains(r.Stderr, "lock") {
			t.Errorf("two domains on one disk: exit %d, %s", r.Exit, r.Stderr)
		}
		g.Finish(t, "vda", disk, "qcow2")
	})
}
