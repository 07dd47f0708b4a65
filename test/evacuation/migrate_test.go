// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"strings"
	"testing"

	"imgward/test/harness"
)

// migrate has the domain go to another host that sees the same storage.
func (s *scene) migrate(t *testing.T, to *harness.Host, args ...string) harness.Result {
	t.Helper()
	return s.vm.Virsh(t, "migrate", append(args, "--live", "--unsafe", "--migrateuri", "tcp://127.0.0.1", "--desturi", to.RemoteURI())...)
}

// elsewhere: --repair leaves a domain alone that runs on another host, and says so.
func (s *scene) elsewhere(t *testing.T) string {
	t.Helper()
	r := s.imgcp(t, "--repair", "vm")
	r.Fails(t, "migrated to another host")
	return r.Stderr
}

// TestMigrates: the domain migrates to another host while its disks are on overlays; libvirt lets it, for no job is under way.
// It runs on there, with nothing done to its overlays or to what is below them; imgcp, --repair and the guardian say where it
// is, and --connect has the overlays merged there.
func TestMigrates(t *testing.T) {
	s := newScene(t)
	o := s.Other(t, "other")
	connect := "--connect=" + strings.Replace(o.RemoteURI(), "+unix", "", 1)
	there := &scene{Host: o, vm: o.Defined(t, harness.Spec{Name: "vm"}), images: s.images}
	for _, c := range []struct {
		name   string
		before func()
		trap   func() string // has the domain migrate, and says what imgcp or --repair said
	}{
		{"imgcp is there", func() { s.vm.Start(t) }, func() string {
			exit, said := s.held(t, func() {
				s.guest(t, "vda", "write -P 9 5M 1M")
				s.migrate(t, o).OK(t)
			})
			if exit != 1 || strings.Count(said, "migrated to another host") != 1 {
				t.Errorf("exit %d:\n%s", exit, said)
			}
			s.Libvirtd().Stop(t) // it forgets why the domain is shut off
			s.StartLibvirtd(t)
			return s.elsewhere(t)
		}},
		{"killed, transient", func() {
			s.vm.Virsh(t, "undefine").OK(t)
			s.Virsh(t, "create", s.Dir+"/vm.xml").OK(t)
		}, func() string {
			cmd := s.frozen(t)
			s.guest(t, "vda", "write -P 9 5M 1M")
			s.kill(t, cmd, true)
			s.migrate(t, o).OK(t)
			return s.elsewhere(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.dest = s.Out + "/" + c.name
			c.before()
			if said := c.trap(); !strings.Contains(said, "imgcp domain --connect qemu+ssh://HOST/system --repair vm") {
				t.Errorf("nobody says what to do:\n%s", said)
			}
			there.guest(t, "vda", "write -P 8 6M 1M")
			if now := there.sources(t)["vda"]; !strings.Contains(now, ".imgcp-") {
				t.Fatalf("it is on %s there: somebody has merged it", now)
			}
			o.Exec(t, harness.Imgcp(), "domain", "--repair", "vm").Fails(t, "an overlay of an imgcp on another host")
			s.imgcp(t, connect, "--repair", "vm").OK(t)
			there.atHome(t)
			there.guest(t, "vda", "read -P 9 5M 1M")
			there.guest(t, "vda", "read -P 8 6M 1M")
			// Of the transient domain there is none.
			if xml := s.vm.Virsh(t, "dumpxml", "--inactive"); strings.Contains(xml.Stdout, ".imgcp-") {
				t.Errorf("its definition names an overlay:\n%s", xml.Stdout)
			}
			there.vm.Virsh(t, "destroy").OK(t)
		})
	}
	t.Run("mirrored", func(t *testing.T) { // libvirt refuses it, as during a backup
		s.Virsh(t, "create", s.Dir+"/vm.xml").OK(t)
		s.dest = s.Out + "/mirror"
		cmd := s.mirrored(t, "--live=mirror", "vm", s.dest)
		s.migrate(t, o).Fails(t, "block job")
		s.vm.Virsh(t, "destroy").OK(t)
		s.ends(t, cmd)
		s.whole(t, "vm")
	})
}
