// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
	"imgward/test/need"
)

// testMirror: each write of the guest's is in the copy when the domain ends, to the last one; the copy keeps the chain.
func testMirror(t *testing.T, s *scene) {
	cmd := s.mirrored(t, "--live=mirror", "vm", s.dest)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.guest(t, "vdb", "write -P 8 6M 1M")
	s.guest(t, "vda", "write -P 7 7M 64k")
	s.vm.Virsh(t, "destroy").OK(t)
	s.ends(t, cmd)
	s.atHome(t)
	m := s.whole(t, "vm")
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	f := m.Find("disks/top.qcow2")
	if m.Method != archive.Mirror || m.Flat || f == nil || f.State != archive.Verified || f.Backing != "disks/middle.qcow2" {
		t.Errorf("%+v", m)
	}
	if n, was := blocks(t, filepath.Join(s.dest, "vm/disks/data.img")), blocks(t, s.images["vdb"]); n > was+MiB {
		t.Errorf("the copy takes %d bytes, the disk %d", n, was)
	}
	s.vm.Start(t)
}

// TestStartOn: the domain goes on elsewhere when its copy is whole, and never runs twice: what would be in the way is said before it
// is asked to end, and its own libvirt cannot start it before the other one has.
func TestStartOn(t *testing.T) {
	s := newScene(t)
	s.vm.Start(t)
	o, place := s.Other(t, "other"), filepath.Join(s.Out, "elsewhere")
	args := []string{"--live=mirror", "--shutdown", "--start-on=" + o.URI(), "--map=" + s.Images + "=" + place, "vm", s.dest}
	other := o.Define(t, harness.Spec{Name: "vm"})
	if r := s.imgcp(t, args...); r.Exit != 4 || !strings.Contains(r.Stderr, "libvirt has a domain vm") {
		t.Errorf("where it is already: exit %d\n%s", r.Exit, r.Stderr)
	}
	s.atHome(t)
	other.Virsh(t, "undefine").OK(t)
	s.imgcp(t, "--live=mirror", "--start-on="+o.URI(), "vm", s.dest).Fails(t, "--shutdown")

	cmd := s.mirrored(t, append([]string{"--resume"}, args...)...)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.guest(t, "vdb", "write -P 8 6M 1M")
	daemon := strings.TrimSpace(o.Exec(t, "pidof", "libvirtd").OK(t))
	o.Exec(t, "kill", "-STOP", daemon).OK(t)
	s.vm.Virsh(t, "destroy").OK(t)
	harness.Until(t, "the copies are compared", func() bool { return strings.Contains(s.log(t), "data.img verified") })
	s.vm.Virsh(t, "start").Fails(t, "lock")
	o.Exec(t, "kill", "-CONT", daemon).OK(t)
	s.ends(t, cmd)
	s.whole(t, "vm")
	there := &scene{Host: o, vm: o.Defined(t, harness.Spec{Name: "vm"})}
	if state := there.vm.State(t); state != "running" || s.vm.State(t) != "shut off" {
		t.Errorf("it is %s there, %s here", state, s.vm.State(t))
	}
	there.guest(t, "vda", "read -P 9 5M 1M")
	there.guest(t, "vdb", "read -P 8 6M 1M")
	for target, image := range there.sources(t) {
		if !strings.HasPrefix(image, place) {
			t.Errorf("%s is %s there", target, image)
		}
	}
}

// TestMirrorShutdown: a guest that writes is asked to shut down when its mirrors are complete; its copy is what it left.
func TestMirrorShutdown(t *testing.T) {
	need.Long(t)
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: map[string]string{
		"vda": h.Overlay(t, "middle.qcow2", h.Qcow2(t, "base.qcow2", 64*MiB), "qcow2"), "vdb": h.Blank(t, "data.img", 40*MiB),
	}}
	guest := h.Boot(t, "vm", harness.Disk{Target: "vda", File: s.images["vda"], Format: "qcow2"}, harness.Disk{Target: "vdb", File: s.images["vdb"]})
	s.vm = guest.Domain
	guest.StartWriting(t, "vda")
	guest.StartWriting(t, "vdb")
	s.imgcp(t, "--live=mirror", "--shutdown", "vm", s.dest).OK(t)
	if state := s.vm.State(t); state != "shut off" {
		t.Errorf("it is %s", state)
	}
	m := s.whole(t, "vm")
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	s.imgcp(t, "--shutdown", "vm", s.dest).Fails(t, "--live=mirror")
}
