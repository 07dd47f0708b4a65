// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
)

// held runs imgcp domain, has something happen to the domain while the disks stand still and imgcp does, and returns how imgcp
// ended.
func (s *scene) held(t *testing.T, trap func(), args ...string) (exit int, said string) {
	t.Helper()
	cmd := s.start(t, append([]string{"--rate-limit=4M"}, append(args, "vm", s.dest)...)...)
	harness.Until(t, "the disks stand still", func() bool { return strings.Contains(s.sources(t)["vda"], ".imgcp-") })
	cmd.Process.Signal(syscall.SIGSTOP)
	trap()
	cmd.Process.Signal(syscall.SIGCONT)
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), s.log(t)
}

// testTraps: what happens to a domain, or to its storage, while its disks are on overlays. Whatever that is, no write of the
// guest's is lost, and the domain is on its own images again, or --repair brings it there.
func testTraps(t *testing.T, s *scene) {
	virsh := func(args ...string) func(*testing.T) {
		return func(t *testing.T) { s.vm.Virsh(t, args[0], args[1:]...).OK(t) }
	}
	full := filepath.Join(s.Dir, "full")
	harness.Sh(t, `mkdir "$FULL"; mount -t tmpfs -o size=24M,mode=711 tmpfs "$FULL"`, "FULL="+full).OK(t)
	t.Cleanup(func() { harness.Run(t, "umount", full).OK(t) })
	unplugged := s.Raw(t, "unplugged.img", MiB)
	for _, c := range []struct {
		name   string
		before func(*testing.T)
		trap   func(*testing.T)
		args   []string
		exit   int
		says   string
		after  func(*testing.T) // brings the domain back to where it runs on its own images
	}{
		{name: "suspended", trap: virsh("suspend"), after: virsh("resume")},
		{name: "destroyed", trap: virsh("destroy"), after: func(t *testing.T) { s.vm.Start(t) }},
		{name: "attached", trap: virsh("attach-disk", s.Raw(t, "hot.img", MiB), "vdc"), after: func(t *testing.T) {
			s.vm.Virsh(t, "destroy").OK(t)
			s.vm.Start(t)
		}},
		{
			name: "unplugged", trap: virsh("detach-disk", "sdb"),
			// A virtio disk stays until the guest lets go of it; there is none here.
			before: virsh("attach-disk", unplugged, "sdb", "--targetbus", "scsi"),
		},
		{
			name: "saved", trap: virsh("managedsave"), exit: 1, says: "virsh start vm",
			after: func(t *testing.T) {
				s.vm.Start(t)
				s.imgcp(t, "--repair", "vm").OK(t)
			},
		},
		{
			name: "overlays fill up", exit: 5, says: "the overlays is running out of space", args: []string{"--scratch=" + full},
			trap: func(t *testing.T) { s.guest(t, "vda", "write -P 9 8M 22M") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.dest = filepath.Join(s.Out, c.name)
			if c.before != nil {
				c.before(t)
			}
			exit, said := s.held(t, func() {
				s.guest(t, "vda", "write -P 9 5M 1M")
				c.trap(t)
			}, c.args...)
			if exit != c.exit || !strings.Contains(said, c.says) {
				t.Errorf("exit %d, want %d and %q:\n%s", exit, c.exit, c.says, said)
			}
			if c.after != nil {
				c.after(t)
			}
			s.atHome(t)
			if state := s.vm.State(t); state != "running" {
				t.Fatalf("the domain is %s", state)
			}
			s.guest(t, "vda", "read -P 9 5M 1M")
			if c.exit == 0 {
				s.whole(t, "vm")
			}
			if left, _ := filepath.Glob(full + "/*"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestNoRoom: DEST runs full. imgcp says so, and the domain runs on, on its own images.
func TestNoRoom(t *testing.T) {
	s := newScene(t)
	s.vm.Start(t)
	s.dest = filepath.Join(s.Dir, "full")
	harness.Sh(t, `mkdir "$FULL"; mount -t tmpfs -o size=5M,mode=711 tmpfs "$FULL"`, "FULL="+s.dest).OK(t)
	t.Cleanup(func() { harness.Run(t, "umount", s.dest).OK(t) })
	for _, way := range []archive.Method{archive.Freeze, archive.Backup, archive.Mirror} {
		if r := s.imgcp(t, "--resume", "--live="+string(way), "vm", s.dest); r.Exit != 5 {
			t.Errorf("%s: exit %d: %s", way, r.Exit, r.Stderr)
		}
		s.atHome(t)
		if state := s.vm.State(t); state != "running" {
			t.Fatalf("%s: the domain is %s", way, state)
		}
		os.RemoveAll(filepath.Join(s.dest, "vm"))
	}
	// Now there is room at first.
	harness.Run(t, "mount", "-o", "remount,size=24M", s.dest).OK(t)
	cmd := s.mirrored(t, "--live=mirror", "vm", s.dest)
	s.guest(t, "vda", "write -P 9 8M 22M")
	cmd.Wait()
	if exit := cmd.ProcessState.ExitCode(); exit != 5 {
		t.Errorf("a mirror that has no room: exit %d:\n%s", exit, s.log(t))
	}
	s.atHome(t)
	s.guest(t, "vda", "read -P 9 8M 22M")
}

// TestOddDisks: internal snapshots are copied with their image; a disk that others may write to is named as not copied; of a
// disk whose changes are thrown away there is what it will be again.
func TestOddDisks(t *testing.T) {
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: map[string]string{"vda": h.Qcow2(t, "middle.qcow2", 8*MiB)}}
	pattern(t, s.images["vda"], "qcow2", 1, 0)
	harness.Run(t, "qemu-img", "snapshot", "-c", "inside", s.images["vda"]).OK(t)
	thrown := h.Qcow2(t, "thrown.qcow2", 8*MiB)
	pattern(t, thrown, "qcow2", 4, 0)
	s.vm = h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{
		{Target: "vda", File: s.images["vda"], Format: "qcow2"},
		{Target: "vdb", File: thrown, Format: "qcow2", Transient: true},
		{Target: "vdc", File: h.Raw(t, "shared.img", MiB), Shareable: true, Cache: "none"},
	}})
	s.guest(t, "vdb", "write -P 5 0 1M")
	for _, way := range []archive.Method{archive.Freeze, archive.Backup} {
		s.dest = filepath.Join(h.Out, string(way))
		r := s.imgcp(t, "--live="+string(way), "vm", s.dest)
		r.OK(t)
		if !strings.Contains(r.Stderr, "NOT copied: vdc") {
			t.Errorf("nobody says that vdc is not copied:\n%s", r.Stderr)
		}
		s.atHome(t)
		m := s.whole(t, "vm")
		s.same(t, m, "vda")
		f := m.Find("disks/thrown.qcow2")
		if f == nil {
			t.Fatalf("%s: no copy of the disk whose changes are thrown away: %+v", way, m.Files)
		}
		harness.Run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 4 0 1M", filepath.Join(s.dest, "vm", f.Path)).OK(t)
	}
	out := harness.Run(t, "qemu-img", "snapshot", "-l", filepath.Join(h.Out, "freeze/vm/disks/middle.qcow2")).OK(t)
	if !strings.Contains(out, "inside") {
		t.Errorf("the internal snapshot is not in the copy:\n%s", out)
	}
}
