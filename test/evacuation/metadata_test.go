// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
)

// TestMetadata: firmware variables, external snapshots and a checkpoint go along, of a domain that runs and is frozen for its
// copy; the chain that the snapshots made is the same afterwards.
func TestMetadata(t *testing.T) {
	s := newScene(t)
	firmware, vars := s.Image("code.fd"), s.Image("vars.fd")
	for path, size := range map[string]int{firmware: 4 * MiB / 2, vars: 64 << 10} {
		if err := os.WriteFile(path, []byte(strings.Repeat("\xff", size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	xml := strings.Replace(s.vm.Virsh(t, "dumpxml", "--inactive").OK(t), "</os>",
		"<loader readonly='yes' type='pflash'>"+firmware+"</loader><nvram>"+vars+"</nvram></os>", 1)
	s.Virsh(t, "define", s.WriteXML(t, "nvram.xml", xml)).OK(t)
	s.vm.Start(t)
	for i, name := range []string{"first", "second"} {
		s.vm.Virsh(t, "snapshot-create-as", name, "--disk-only", "--atomic", "--diskspec", "vda,file="+s.Image(name+".qcow2"),
			"--diskspec", "vdb,snapshot=no", "--diskspec", "sda,snapshot=no").OK(t)
		s.images["vda"] = s.Image(name + ".qcow2")
		s.guest(t, "vda", []string{"write -P 11 8M 1M", "write -P 12 9M 1M"}[i])
	}
	s.vm.Virsh(t, "checkpoint-create-as", "mark", "--diskspec", "vda", "--diskspec", "vdb,checkpoint=no").OK(t)
	s.imgcp(t, "--verify", "vm", s.dest).OK(t)
	s.atHome(t)
	m := s.whole(t, "vm")
	s.same(t, m, "vda")
	for path, kind := range map[string]archive.Kind{
		"nvram/vars.fd": archive.NVRAM, "snapshots/first.xml": archive.Snapshot, "snapshots/second.xml": archive.Snapshot,
		"checkpoints/mark.xml": archive.Checkpoint, "disks/second.qcow2": archive.Disk, "disks/base.qcow2": archive.Backing,
	} {
		if f := m.Find(path); f == nil || f.Kind != kind {
			t.Errorf("%s: %+v", path, f)
		}
	}
	if out := harness.Run(t, "qemu-img", "info", "-U", filepath.Join(s.dest, "vm/disks/second.qcow2")).OK(t); !strings.Contains(out, "mark") {
		t.Errorf("the checkpoint's bitmap is not in the copy:\n%s", out)
	}
	if n := len(strings.Fields(s.vm.Virsh(t, "snapshot-list", "--name").OK(t))); n != 2 {
		t.Errorf("%d snapshots", n)
	}
	if out := s.vm.Virsh(t, "checkpoint-list", "--name").OK(t); out != "mark" {
		t.Errorf("checkpoints %q", out)
	}
}
