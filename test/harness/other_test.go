// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"strings"
	"testing"
)

// TestOther: two other hosts over one directory of images, neither of which sees the other's domain; a domain's disk is
// written on one, and protected there by its own view.
func TestOther(t *testing.T) {
	h := NewFiles(t)
	disk := h.Raw(t, "vm.img", 64*MiB)
	alpha, beta := h.Other(t, "alpha"), h.Other(t, "beta")
	v := alpha.Mount(t)
	d := alpha.Run(t, Spec{Name: "vm", Guest: true, Disks: []Disk{{Target: "vda", File: disk}}})
	d.NewAgent(t).Fill(t, "vda", 0, BlocksPerMiB)
	d.NewAgent(t).Healthy(t, "vda")
	if name := alpha.Exec(t, "hostname").OK(t); name != "alpha" {
		t.Errorf("the host's name is %s", name)
	}
	if list := beta.Virsh(t, "list", "--all", "--name").OK(t); list != "" {
		t.Errorf("the other host knows %q", list)
	}
	if got := beta.Exec(t, "pidof", "qemu-system-x86_64"); got.Exit == 0 {
		t.Errorf("the other host sees QEMU: %s", got.Stdout)
	}
	if got := Run(t, "virsh", "-q", "-c", alpha.URI(), "list", "--name").OK(t); strings.TrimSpace(got) != "vm" {
		t.Errorf("by its URI: %q", got)
	}
	if !Native() {
		if got := alpha.Exec(t, "truncate", "-s", "0", disk); got.Exit == 0 {
			t.Error("the disk of a running domain was truncated on its own host")
		}
		if uses := v.InUse(t)["vm.img"]; len(uses) == 0 || uses[0].Domain != "vm" {
			t.Errorf("alpha's view: %+v", uses)
		}
		if got := beta.Exec(t, "stat", "-f", "-c", "%T", h.Images).OK(t); strings.Contains(got, "fuse") {
			t.Errorf("beta has alpha's view: %s", got)
		}
	}
	d.Virsh(t, "destroy").OK(t)
}
