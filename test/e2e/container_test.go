// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// TestContainer: a VM in a container, with a libvirtd, a QEMU and mount and pid namespaces of its own, whose status files the
// view does not see. It has its image through the view, so that is refused to others as any VM's, and the VM is not hindered.
func TestContainer(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	c := h.Other(t, "container")
	c.Share(t, h.Images)
	c.Emulator = h.InstallEmulator(t, "opt/container/bin/qemu-system-x86_64")
	s := newScene(t, h, "container")
	image, hot := s.image(t, "vm.img"), s.image(t, "hot.img")
	var d *harness.Domain
	unhindered(t, v, func() {
		d = c.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: image}}})
		d.Virsh(t, "attach-disk", hot, "vdb", "--live").OK(t)
		d.Virsh(t, "blockresize", "vda", "96M").OK(t)
	})
	for _, path := range []string{image, hot} {
		before := h.Identify(t, path)
		for _, r := range refused {
			if r.virsh || r.format == "qcow2" || !slices.Contains(sample, r.name) && !need.All() {
				continue
			}
			s.run(t, r, path).Fails(t, r.message())
			unchanged(t, before, h.Identify(t, path))
		}
		if uses := v.InUse(t)[s.name(path)]; len(uses) == 0 {
			t.Errorf("status does not show %s in use", path)
		}
	}
	d.Virsh(t, "destroy").OK(t)
	harness.Until(t, "its images can be removed", func() bool { return harness.Run(t, "rm", "-f", image, hot).Exit == 0 })
}
