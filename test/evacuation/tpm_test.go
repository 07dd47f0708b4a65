// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
	"imgward/test/need"
)

// TestTPM: the state of an emulated TPM goes along, and the domain starts with it on another host.
func TestTPM(t *testing.T) {
	need.Extra(t, "swtpm swtpm-tools", "swtpm", "swtpm_setup")
	h := harness.New(t)
	// swtpm_setup makes a certificate authority there, as its own user.
	harness.Sh(t, `mkdir "$CA"; chmod 1777 "$CA"; mount --bind "$CA" /var/lib/swtpm-localca`, "CA="+filepath.Join(h.Dir, "ca")).OK(t)
	t.Cleanup(func() { harness.Run(t, "umount", "/var/lib/swtpm-localca").OK(t) })
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac"), images: map[string]string{"vda": h.Qcow2(t, "middle.qcow2", 8*MiB)}}
	xml := h.DomainXML(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: s.images["vda"], Format: "qcow2"}}})
	xml = strings.Replace(xml, "<memballoon", "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm><memballoon", 1)
	h.Virsh(t, "define", h.WriteXML(t, "vm.xml", xml)).OK(t)
	s.vm = h.Defined(t, harness.Spec{Name: "vm"})
	s.vm.Start(t)
	s.imgcp(t, "--verify", "vm", s.dest).OK(t)
	s.atHome(t)
	const state = "tpm/tpm2/tpm2-00.permall"
	if f := s.whole(t, "vm"); f.Find(state) == nil || f.Find(state).Kind != archive.TPM || f.Find(state).Size == 0 {
		t.Fatalf("%+v", f.Files)
	}
	s.vm.Virsh(t, "destroy").OK(t)
	s.away(t)

	o := s.Other(t, "other")
	restore(t, o, "--map", s.Images+"="+filepath.Join(s.Out, "elsewhere"), filepath.Join(s.dest, "vm")).OK(t)
	vm := o.Defined(t, harness.Spec{Name: "vm"})
	uuid := strings.TrimSpace(vm.Virsh(t, "domuuid").OK(t))
	was, err := os.ReadFile(filepath.Join(s.dest, "vm", state))
	if err != nil {
		t.Fatal(err)
	}
	if now := o.Exec(t, "cat", "/var/lib/libvirt/swtpm/"+uuid+"/tpm2/tpm2-00.permall").OK(t); now != string(was) {
		t.Error("the TPM has another state")
	}
	vm.Start(t)
}
