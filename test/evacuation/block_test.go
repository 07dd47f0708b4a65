// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestBlockDevices: a chain of qcow2 images on block devices that are named by symbolic links, as on LVs, and a raw disk on one:
// copied while the domain runs, and restored as files.
func TestBlockDevices(t *testing.T) {
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: make(map[string]string)}
	vg := filepath.Join(h.Dir, "vg")
	if err := os.Mkdir(vg, 0o711); err != nil {
		t.Fatal(err)
	}
	lv := func(name string) string {
		loop := strings.TrimSpace(harness.Run(t, "losetup", "-f", "--show", h.Blank(t, name+".img", 8*MiB)).OK(t))
		t.Cleanup(func() { harness.Run(t, "losetup", "-d", loop).OK(t) })
		if err := os.Symlink(loop, filepath.Join(vg, name)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(vg, name)
	}
	base, top, raw := lv("base"), lv("top"), lv("raw")
	harness.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "6M").OK(t)
	pattern(t, base, "qcow2", 1, 0)
	harness.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top).OK(t)
	pattern(t, top, "qcow2", 2, 1)
	pattern(t, raw, "raw", 3, 2)
	xml := h.DomainXML(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: top, Format: "qcow2"}, {Target: "vdb", File: raw}}})
	xml = strings.NewReplacer("<disk type='file'", "<disk type='block'", "<source file=", "<source dev=").Replace(xml)
	h.Virsh(t, "define", h.WriteXML(t, "vm.xml", xml)).OK(t)
	s.vm = h.Defined(t, harness.Spec{Name: "vm"})
	s.vm.Start(t)
	s.images["vda"], s.images["vdb"] = top, raw
	s.imgcp(t, "vm", s.dest).Fails(t, "--scratch")
	s.imgcp(t, "--resume", "--scratch="+h.Images, "vm", s.dest).OK(t)
	if now := s.sources(t); now["vda"] != top || now["vdb"] != raw {
		t.Errorf("it is on %v", now)
	}
	s.same(t, s.whole(t, "vm"), "vda")
	s.same(t, s.whole(t, "vm"), "vdb")
	s.vm.Virsh(t, "destroy").OK(t)
	s.vm.Virsh(t, "undefine").OK(t)

	restore(t, h, "--map", vg+"="+filepath.Join(h.Out, "elsewhere"), filepath.Join(s.dest, "vm")).OK(t)
	s.vm.Start(t)
	for _, c := range []string{"read -P 1 0 1M", "read -P 2 1M 1M"} {
		s.guest(t, "vda", c)
	}
	s.guest(t, "vdb", "read -P 3 2M 1M")
	if xml := s.vm.Virsh(t, "dumpxml").OK(t); strings.Contains(xml, vg) || strings.Contains(xml, "/dev/loop") {
		t.Errorf("it leads to where it was:\n%s", xml)
	}
}
