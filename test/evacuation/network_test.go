// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
)

// TestNetworkDisk: a disk on another host's storage is named as not copied by freeze, and copied by backup; restored it is a
// file, and nothing leads to that storage any more.
func TestNetworkDisk(t *testing.T) {
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: map[string]string{"vda": h.Qcow2(t, "middle.qcow2", 8*MiB)}}
	served, socket := filepath.Join(h.Dir, "served.img"), filepath.Join(harness.Sockets, "served")
	harness.Run(t, "qemu-img", "create", "-q", "-f", "raw", served, "8M").OK(t)
	harness.Spawn(t, filepath.Join(h.Dir, "qemu-nbd.log"), "qemu-nbd", "-k", socket, "-t", "-e", "8", "-f", "raw", "-x", "disk", served)
	harness.Until(t, "qemu-nbd answers", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	harness.Run(t, "chmod", "666", socket).OK(t)
	xml := h.DomainXML(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: s.images["vda"], Format: "qcow2"}}})
	xml = strings.Replace(xml, "<memballoon", "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"+
		"<source protocol='nbd' name='disk'><host transport='unix' socket='"+socket+"'/></source><target dev='vdb' bus='virtio'/></disk><memballoon", 1)
	h.Virsh(t, "define", h.WriteXML(t, "vm.xml", xml)).OK(t)
	s.vm = h.Defined(t, harness.Spec{Name: "vm"})
	s.vm.Start(t)
	s.guest(t, "vda", "write -P 6 1M 1M")
	s.guest(t, "vdb", "write -P 7 1M 1M")
	r := s.imgcp(t, "vm", s.dest+".freeze")
	r.OK(t)
	if !strings.Contains(r.Stderr, "NOT copied: vdb nbd:disk") {
		t.Errorf("nobody says that vdb is not copied:\n%s", r.Stderr)
	}
	s.atHome(t)
	if plan := s.imgcp(t, "--plan", "--live=backup", "vm", s.dest).OK(t); !strings.Contains(plan, "nbd:disk") || strings.Contains(plan, "NOT") {
		t.Errorf("the plan:\n%s", plan)
	}
	s.imgcp(t, "--live=backup", "--verify", "vm", s.dest).OK(t)
	s.atHome(t)
	m := s.whole(t, "vm")
	if f := m.Find("disks/vdb.raw"); f == nil || f.State != archive.Verified || f.Source != "nbd:disk" || f.Size != 8*MiB || len(m.Omitted) > 0 {
		t.Errorf("%+v", m)
	}
	harness.Run(t, "qemu-img", "compare", "-U", filepath.Join(s.dest, "vm/disks/vdb.raw"), served).OK(t)
	s.vm.Virsh(t, "destroy").OK(t)
	s.away(t)

	o, copied := s.Other(t, "other"), filepath.Join(s.dest, "vm")
	place := filepath.Join(s.Out, "elsewhere")
	restore(t, o, "--map", s.Images+"="+place, copied).Fails(t, "--map nbd:disk=FILE")
	restore(t, o, "--map", s.Images+"="+place, "--map", "nbd:disk="+place+"/vdb.img", copied).OK(t)
	there := &scene{Host: o, vm: o.Defined(t, harness.Spec{Name: "vm"})}
	for _, words := range []string{"nbd", socket, "type='network'"} {
		if xml := there.vm.Virsh(t, "dumpxml").OK(t); strings.Contains(xml, words) {
			t.Errorf("it still has %s:\n%s", words, xml)
		}
	}
	there.vm.Start(t)
	there.guest(t, "vda", "read -P 6 1M 1M")
	there.guest(t, "vdb", "read -P 7 1M 1M")
}
