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

// TestRefuseEveryPart: all files of one domain, whatever they are to it: a chain of four with relative names, an external
// data file, a volume of a pool, kernel, initrd and a medium that was changed.
func TestRefuseEveryPart(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	pool(t, h)
	h.Raw(t, "base.img", 8*MiB)
	harness.Sh(t, `set -e; cd "$DIR"
		qemu-img create -q -f qcow2 -b base.img -F raw one.qcow2
		qemu-img create -q -f qcow2 -b ./one.qcow2 -F qcow2 two.qcow2
		qemu-img create -q -f qcow2 -b two.qcow2 -F qcow2 top.qcow2
		qemu-img create -q -f qcow2 -o data_file="$DIR/data.raw",data_file_raw=on data.qcow2 8M
		chmod 666 data.raw # libvirt 9.0 knows nothing of it
		truncate -s 8M volume.img first.iso second.iso
		cp "$KERNEL" kernel; cp "$INITRD" initrd`, append(guestFiles(), "DIR="+h.Images)...).OK(t)
	h.Virsh(t, "pool-refresh", "images").OK(t)
	disk := func(kind, device, source, format, target string) string {
		return fmt.Sprintf("<disk type='%s' device='%s'><driver name='qemu' type='%s'/><source %s/><target dev='%s' bus='scsi'/></disk>",
			kind, device, format, source, target)
	}
	file := func(name string) string { return "file='" + h.Image(name) + "'" }
	xml := fmt.Sprintf(`<domain type='qemu'><name>vm</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type>
		<kernel>%s</kernel><initrd>%s</initrd></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
		<controller type='scsi' model='virtio-scsi'/>%s%s%s%s</devices></domain>`, h.Image("kernel"), h.Image("initrd"),
		disk("file", "disk", file("top.qcow2"), "qcow2", "sda"),
		disk("file", "disk", file("data.qcow2"), "qcow2", "sdb"),
		disk("volume", "disk", "pool='images' volume='volume.img'", "raw", "sdc"),
		disk("file", "cdrom", file("first.iso"), "raw", "sdd"))
	// The medium is changed before the guest begins: a guest that starts resets its SCSI devices, which closes the tray in
	// the moment between QEMU's opening it and its inserting the other medium.
	h.Virsh(t, "create", h.WriteXML(t, "parts.xml", xml), "--paused").OK(t)
	t.Cleanup(func() { h.Virsh(t, "destroy", "vm").OK(t) })
	h.Virsh(t, "change-media", "vm", "sdd", h.Image("second.iso"), "--update", "--live", "--force").OK(t)
	h.Virsh(t, "resume", "vm").OK(t)
	harness.Run(t, "rm", h.Image("first.iso")).OK(t)
	for _, state := range []string{"running", "paused"} {
		t.Run(state, func(t *testing.T) {
			if state == "paused" {
				h.Virsh(t, "suspend", "vm").OK(t)
			}
			for name, role := range map[string]string{
				"top.qcow2": "disk", "two.qcow2": "backing", "one.qcow2": "backing", "base.img": "backing",
				"data.qcow2": "disk", "data.raw": "data-file", "volume.img": "disk", "second.iso": "cdrom",
				"kernel": "kernel", "initrd": "initrd",
			} {
				before := h.Identify(t, h.Image(name))
				protected(t, h.Image(name))
				unchanged(t, before, h.Identify(t, h.Image(name)))
				uses := v.InUse(t)[name]
				if len(uses) == 0 || uses[0].Domain != "vm" || uses[0].Role != role {
					t.Errorf("%s is used as %+v, want %s of vm", name, uses, role)
				}
			}
		})
	}
}

// guestFiles are the sandbox's kernel and initrd, for a script.
func guestFiles() []string {
	root := filepath.Dir(filepath.Dir(harness.Imgward()))
	return []string{"KERNEL=" + root + "/guest/vmlinux", "INITRD=" + root + "/guest/initramfs"}
}

// TestStatusFileLeft: libvirtd and QEMU were killed, and the status file still says "running". Nobody uses the disk.
func TestStatusFileLeft(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	pid := d.PID(t)
	protected(t, disk)
	h.Libvirtd().Kill(t)
	protected(t, disk)
	harness.Run(t, "kill", "-9", fmt.Sprint(pid)).OK(t)
	harness.Until(t, "QEMU ends", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); return err != nil })
	if _, err := os.Stat(filepath.Join(statusDir, "vm.xml")); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the disk is anybody's", func() bool {
		return harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "count=1", "conv=notrunc").Exit == 0
	})
	if status := harness.Run(t, harness.Imgward(), "status", h.Images).OK(t); !strings.Contains(status, "vm") {
		t.Errorf("status says nothing of the file that was left:\n%s", status)
	}
	h.StartLibvirtd(t)
	d.Start(t)
	protected(t, disk)
}
