// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"

	"imgward/test/harness"
)

// above are ways to use an image through a loop device, LOOP; each says what a refusal is to name.
var above = []struct{ name, use, end, says string }{
	{"mounted", `mkfs.ext4 -q "$LOOP"; mkdir -p "$OUT/mnt"; mount "$LOOP" "$OUT/mnt"; echo x >"$OUT/mnt/file"; sync; fstrim "$OUT/mnt"`, `umount "$OUT/mnt"`, "mounted on"},
	{"swap", `mkswap -q "$LOOP"; swapon "$LOOP"`, `swapoff "$LOOP"`, "swap"},
	{"a domain's disk", `virsh -q create "$XML"`, `virsh -q destroy vm`, "vda of running domain vm"},
	{"a VMM's by hand", ``, ``, "virtual machine process"},
}

// TestLoopDevices: what is above a loop device over an image uses the image.
func TestLoopDevices(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	for _, c := range above {
		t.Run(c.name, func(t *testing.T) {
			image := h.Raw(t, "vm.img", 32*MiB)
			loop := harness.Run(t, "losetup", "-f", "--show", image).OK(t)
			detach := func() { harness.Run(t, "losetup", "-d", loop) }
			defer detach()
			xml := h.WriteXML(t, "loop.xml", `<domain type='qemu'><name>vm</name><memory unit='MiB'>64</memory>
				<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
				<disk type='block' device='disk'><source dev='`+loop+`'/><target dev='vda' bus='virtio'/></disk></devices></domain>`)
			env := []string{"LOOP=" + loop, "OUT=" + h.Out, "XML=" + xml}
			harness.Run(t, "mv", image, h.Image("free.img")).OK(t) // nothing is above it yet
			harness.Run(t, "mv", h.Image("free.img"), image).OK(t)
			var vmm *harness.Daemon
			if c.use == "" {
				vmm = bare(t, h, "onloop", strings.Replace(bareDrive, "driver=file", "driver=host_device", 1)+`file.filename="$IMG"`, loop)
			}
			unhindered(t, v, func() { harness.Sh(t, "set -e; "+c.use, env...).OK(t) })
			before := h.Identify(t, image)
			protected(t, image)
			unchanged(t, before, h.Identify(t, image))
			if log := v.Logged(t); !strings.Contains(log, loop) || !strings.Contains(log, c.says) {
				t.Errorf("the refusals name neither %s nor %q", loop, c.says)
			}
			harness.Sh(t, c.end, env...).OK(t)
			if vmm != nil {
				vmm.Kill(t)
			}
			detach()
			harness.Until(t, "it can be removed", func() bool { return os.Remove(image) == nil })
		})
	}
}
