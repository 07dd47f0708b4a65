// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// restore runs imgcp restore on a host.
func restore(t *testing.T, h *harness.Host, args ...string) harness.Result {
	t.Helper()
	return h.Exec(t, append([]string{harness.Imgcp(), "restore"}, args...)...)
}

// away moves the images of the first host where nothing finds them.
func (s *scene) away(t *testing.T) {
	t.Helper()
	gone := filepath.Join(s.Dir, "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.Images)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Rename(s.Image(e.Name()), filepath.Join(gone, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestore: on another host, with the original gone and the directories elsewhere, the domain is what it was: its data,
// its definition but for the paths, its snapshots; and nothing it has leads to where it came from.
func TestRestore(t *testing.T) {
	s := newScene(t)
	s.vm.Virsh(t, "snapshot-create-as", "before", "--disk-only", "--diskspec", "vdb,snapshot=no", "--diskspec", "sda,snapshot=no").OK(t)
	pattern(t, s.Image("top.before"), "qcow2", 9, 5)
	uuid := strings.TrimSpace(s.vm.Virsh(t, "domuuid").OK(t))
	s.imgcp(t, "vm", s.dest).OK(t)
	s.away(t)

	o, copied, place := s.Other(t, "other"), filepath.Join(s.dest, "vm"), filepath.Join(s.Out, "elsewhere")
	mapping := s.Images + "=" + place
	printed := restore(t, o, "--print", "--map", mapping, copied).OK(t)
	if strings.Contains(printed, s.Images) || !strings.Contains(printed, place) {
		t.Errorf("printed:\n%s", printed)
	}
	if _, err := os.Stat(place); err == nil {
		t.Error("--print made something")
	}
	restore(t, o, "--verify", "--map", mapping, copied).OK(t)
	o.Defined(t, harness.Spec{Name: "vm"})
	if state := strings.TrimSpace(o.Virsh(t, "domstate", "vm").OK(t)); state != "shut off" {
		t.Errorf("it is %s", state)
	}
	if now := strings.TrimSpace(o.Virsh(t, "domuuid", "vm").OK(t)); now != uuid {
		t.Errorf("UUID %s, was %s", now, uuid)
	}
	if got := strings.TrimSpace(o.Virsh(t, "snapshot-list", "vm", "--name").OK(t)); got != "before" {
		t.Errorf("snapshots: %q", got)
	}
	if got := strings.TrimSpace(o.Virsh(t, "snapshot-current", "vm", "--name").OK(t)); got != "before" {
		t.Errorf("the current snapshot: %q", got)
	}
	for _, xml := range []string{o.Virsh(t, "dumpxml", "vm").OK(t), o.Virsh(t, "snapshot-dumpxml", "vm", "before").OK(t)} {
		if strings.Contains(xml, s.Images) {
			t.Errorf("it leads to where it was:\n%s", xml)
		}
	}
	harness.Run(t, "qemu-io", "-f", "qcow2", "-c", "read -P 1 0 1M", "-c", "read -P 2 1M 1M", "-c", "read -P 3 2M 1M", "-c", "read -P 9 5M 1M",
		filepath.Join(place, "top.before")).OK(t)

	if again := restore(t, o, "--map", mapping, copied); again.Exit != 4 {
		t.Errorf("a second time: exit %d\n%s", again.Exit, again.Stderr)
	}
	if second := restore(t, o, "--as", "second", "--map", mapping, copied); second.Exit != 4 || !strings.Contains(second.Stderr, "--map") {
		t.Errorf("over its images: exit %d\n%s", second.Exit, second.Stderr)
	}
	restore(t, o, "--as", "second", "--map", s.Images+"="+place+"2", copied).OK(t)
	o.Defined(t, harness.Spec{Name: "second"})
	if now := strings.TrimSpace(o.Virsh(t, "domuuid", "second").OK(t)); now == uuid {
		t.Error("two domains have one UUID")
	}
}

// TestRestoreRunning: of a domain that ran, the checkpoint comes along, and the domain starts on the other host.
func TestRestoreRunning(t *testing.T) {
	s := newScene(t)
	s.vm.Start(t)
	s.vm.Virsh(t, "checkpoint-create-as", "first", "--diskspec", "vda,checkpoint=bitmap", "--diskspec", "vdb,checkpoint=no").OK(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.guest(t, "vdb", "write -P 8 5M 1M")
	s.imgcp(t, "vm", s.dest).OK(t)
	s.vm.Virsh(t, "destroy").OK(t)
	s.away(t)

	o := s.Other(t, "other")
	restore(t, o, "--map", s.Images+"="+filepath.Join(s.Out, "elsewhere"), filepath.Join(s.dest, "vm")).OK(t)
	vm := o.Defined(t, harness.Spec{Name: "vm"})
	if got := strings.TrimSpace(vm.Virsh(t, "checkpoint-list", "--name").OK(t)); got != "first" {
		t.Errorf("checkpoints: %q", got)
	}
	vm.Start(t)
	there := &scene{Host: o, vm: vm}
	for _, c := range []string{"read -P 1 0 1M", "read -P 2 1M 1M", "read -P 3 2M 1M", "read -P 9 5M 1M", "write -P 7 6M 1M"} {
		there.guest(t, "vda", c)
	}
	there.guest(t, "vdb", "read -P 8 5M 1M")
	// The originals are there, under other names: not one of them is open.
	pid := strings.TrimSpace(o.Exec(t, "cat", "/run/libvirt/qemu/vm.pid").OK(t))
	open, restored := o.Exec(t, "sh", "-c", "readlink /proc/"+pid+"/fd/*").OK(t), 0
	for name := range strings.Lines(open) {
		name = strings.TrimSpace(name)
		switch {
		case strings.HasPrefix(name, s.Out+"/elsewhere/"):
			restored++
		case strings.HasPrefix(name, s.Images), strings.HasPrefix(name, s.Dir+"/gone"), strings.HasPrefix(name, s.Out):
			t.Errorf("QEMU has %s open", name)
		}
	}
	if restored < 4 {
		t.Errorf("QEMU has %d images of the copy open, of a chain of three and a disk:\n%s", restored, open)
	}
}

// TestRestoreSaved: a domain that was saved goes on where it was, on the other host, from its copy.
func TestRestoreSaved(t *testing.T) {
	need.Long(t)
	s := newScene(t)
	s.vm.Start(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.vm.Virsh(t, "managedsave").OK(t)
	s.imgcp(t, "vm", s.dest).OK(t)
	s.vm.Virsh(t, "managedsave-remove").OK(t)
	s.away(t)

	o, copied := s.Other(t, "other"), filepath.Join(s.dest, "vm")
	mapping := "--map=" + s.Images + "=" + filepath.Join(s.Out, "elsewhere")
	restore(t, o, mapping, copied).OK(t)
	vm := o.Defined(t, harness.Spec{Name: "vm"})
	if state := vm.State(t); state != "shut off" {
		t.Errorf("it is %s", state)
	}
	vm.Virsh(t, "undefine").Fails(t, "managed save image exists")
	o.Exec(t, "rm", "-r", filepath.Join(s.Out, "elsewhere"), "/var/lib/libvirt/qemu/save/vm.save").OK(t)
	vm.Virsh(t, "undefine").OK(t)
	restore(t, o, "--start", mapping, copied).OK(t)
	if state := vm.Virsh(t, "domstate", "--reason").OK(t); state != "running (restored)" {
		t.Errorf("it is %s", state)
	}
	there := &scene{Host: o, vm: vm}
	there.guest(t, "vda", "read -P 9 5M 1M")
	if xml := vm.Virsh(t, "dumpxml").OK(t); strings.Contains(xml, s.Images) {
		t.Errorf("it leads to where it was:\n%s", xml)
	}
}
