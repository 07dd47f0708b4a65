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

// TestNames: whatever domains and images are called, they are copied, undone and restored; and one that vanishes while others are
// copied fails alone.
func TestNames(t *testing.T) {
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: make(map[string]string)}
	names := []string{"-x y", "[a]*?", "ü 'q' \"d\" $(id);&", "%s..", "imgcp-1.imgcp-00000000.qcow2"}
	for i, name := range names {
		image := h.Qcow2(t, "top "+strings.Repeat("é,:%=", i+1)+".qcow2", MiB)
		// No newline: in libvirt's own XML it is none any more. What a template of text makes of a name is not what is tested.
		xml := strings.NewReplacer("NAME", escape(name), "IMAGE", escape(image)).Replace(
			h.DomainXML(t, harness.Spec{Name: "NAME", Disks: []harness.Disk{{Target: "vda", File: "IMAGE", Format: "qcow2"}}}))
		h.Virsh(t, "define", h.WriteXML(t, "vm.xml", xml)).OK(t)
		t.Cleanup(func() {
			h.Virsh(t, "destroy", "--domain", name)
			h.Virsh(t, "undefine", "--domain", name)
			if left := h.Virsh(t, "list", "--all", "--name").OK(t); strings.Contains(left, name) {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	h.Virsh(t, "start", "--domain", names[0]).OK(t)
	s.imgcp(t, "--all", "--verify", s.dest).OK(t)
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(s.dest, name, archive.Name)); err != nil {
			t.Error(err)
		}
		s.imgcp(t, "--resume", "--", name, s.dest).OK(t)
		restore(t, h, "--print", "--as=other", "--map="+h.Images+"="+h.Out+"/elsewhere", "--", filepath.Join(s.dest, name)).OK(t)
	}
	harness.Run(t, harness.Imgcp(), "report", "--verify", s.dest).OK(t)

	// Its guardian undoes what was done to one that looks like an option.
	s.dest += ".killed"
	cmd := s.start(t, "--rate-limit=64K", "--", names[0], s.dest)
	list := func() string { return h.Virsh(t, "domblklist", "--domain", names[0]).OK(t) }
	harness.Until(t, "the disks stand still", func() bool { return strings.Contains(list(), ".imgcp-") })
	s.kill(t, cmd, false)
	harness.Until(t, "the guardian is done", func() bool { return !strings.Contains(list(), ".imgcp-") })
	harness.Until(t, "nothing is left", func() bool {
		left, _ := filepath.Glob(h.Image("*.imgcp-*"))
		return len(left) == 0
	})

	s.dest += ".vanished"
	cmd = s.start(t, "--rate-limit=64K", "--all", s.dest)
	harness.Until(t, "the disks stand still", func() bool { return strings.Contains(list(), ".imgcp-") })
	h.Virsh(t, "undefine", "--domain", names[1]).OK(t)
	cmd.Wait()
	if exit, said := cmd.ProcessState.ExitCode(), s.log(t); exit != 1 || !strings.Contains(said, "not copied: 1 of 5 domains") {
		t.Errorf("exit %d:\n%s", exit, said)
	}
	harness.Run(t, harness.Imgcp(), "report", s.dest).OK(t)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", "'", "&apos;", `"`, "&quot;", "\n", "&#10;").Replace(s)
}
