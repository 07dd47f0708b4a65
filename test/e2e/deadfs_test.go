// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestDeadFileSystem: disks of one domain lie on a file system that does not answer. All else goes on, for VMs and for
// administrators, and what does not answer is named.
func TestDeadFileSystem(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	dead := h.NewDeaf(t, "nfs")
	local, base, free := h.Raw(t, "local.img", 8*MiB), h.Raw(t, "base.img", 8*MiB), h.Raw(t, "free.img", 8*MiB)
	far := harness.Spec{Name: "far"}
	for i := range 4 {
		path := filepath.Join(dead.Dir, fmt.Sprint("far", i, ".img"))
		if err := os.WriteFile(path, make([]byte, MiB), 0o644); err != nil {
			t.Fatal(err)
		}
		far.Disks = append(far.Disks, harness.Disk{Target: fmt.Sprintf("vd%c", 'a'+i), File: path})
	}
	far.Disks = append(far.Disks, harness.Disk{Target: "vdz", File: local})
	f := h.Run(t, far)
	near := h.Overlay(t, "near.qcow2", base, "raw")
	dead.Stop(t)
	h.Mount(t)

	harness.Run(t, "dd", "if=/dev/zero", "of="+free, "count=1", "conv=notrunc").OK(t)
	protected(t, local)
	d := h.Run(t, harness.Spec{Name: "near", Disks: []harness.Disk{{Target: "vda", File: near, Format: "qcow2"}}})
	refused := harness.Run(t, "rm", base)
	refused.Fails(t, "Device or resource busy")
	for _, what := range []string{"status", "doctor"} {
		said := harness.Run(t, harness.Imgward(), what).Stdout
		if !strings.Contains(said, dead.Dir+"/far") || !strings.Contains(said, "domain far") {
			t.Errorf("%s does not name the path that does not answer, and its domain:\n%s", what, said)
		}
	}
	d.Virsh(t, "destroy").OK(t)
	harness.Run(t, "rm", near, base, free).OK(t)

	dead.Continue(t)
	harness.Until(t, "the path answers", func() bool {
		return !strings.Contains(harness.Run(t, harness.Imgward(), "status").OK(t), dead.Dir)
	})
	f.Virsh(t, "destroy").OK(t)
}

// TestDeadStatusDirectory: one of libvirt's directories does not answer. Destroyers are told so, and nobody waits for it.
func TestDeadStatusDirectory(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	disk, free := h.Raw(t, "vm.img", 8*MiB), h.Raw(t, "free.img", 8*MiB)
	v := h.Mount(t)
	v.Expected = []string{"/run/libvirt/ch"}
	dead := h.MountDeaf(t, "/run/libvirt/ch")
	dead.Stop(t)
	fresh := h.Image("fresh.img")
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	harness.Run(t, "dd", "if=/dev/zero", "of="+free, "count=1").Fails(t, "Device or resource busy")
	said := harness.Run(t, harness.Imgward(), "check", "truncate", free)
	if !strings.Contains(said.Stdout+said.Stderr, "/run/libvirt/ch cannot be read (the file system does not answer)") {
		t.Errorf("the directory that does not answer is not named: %s%s", said.Stdout, said.Stderr)
	}
	harness.Run(t, "qemu-img", "create", "-f", "qcow2", fresh, "8M").OK(t)
	harness.Run(t, "rm", fresh).OK(t)
	d.Virsh(t, "destroy").OK(t)
	dead.Continue(t)
	harness.Until(t, "the directory is read", func() bool {
		return harness.Run(t, "dd", "if=/dev/zero", "of="+free, "count=1").Exit == 0
	})
}
