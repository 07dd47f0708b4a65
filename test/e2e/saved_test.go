// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/test/harness"
)

// savedScene is a domain with a disk and an overlay.
func savedScene(t *testing.T, h *harness.Host) (d *harness.Domain, images []string) {
	t.Helper()
	disk, base := h.Raw(t, "disk.img", 8*MiB), h.Raw(t, "base.img", 8*MiB)
	over := h.Overlay(t, "over.qcow2", base, "raw")
	d = h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}, {Target: "vdb", File: over, Format: "qcow2"}}})
	return d, []string{disk, base, over}
}

// free fails the test unless images can be removed and written to; they are not, for that would be for good.
func free(t *testing.T, images ...string) {
	t.Helper()
	for _, image := range images {
		harness.Run(t, "dd", "if=/dev/null", "of="+image, "conv=notrunc").OK(t)
		harness.Run(t, "mv", image, image+".moved").OK(t)
		harness.Run(t, "mv", image+".moved", image).OK(t)
	}
}

func says(t *testing.T, image string, parts ...string) {
	t.Helper()
	r := harness.Run(t, harness.Imgward(), "check", "truncate", image)
	for _, part := range parts {
		if !strings.Contains(r.Stdout+r.Stderr, part) {
			t.Errorf("the refusal does not say %q: %s%s", part, r.Stdout, r.Stderr)
		}
	}
}

// TestManagedSave: between managedsave and start, the disks and what is behind them stay as they are.
func TestManagedSave(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	d, images := savedScene(t, h)
	d.Virsh(t, "managedsave").OK(t)
	v := h.Mount(t)
	v.Expected = []string{"the worker died"}
	for _, image := range images {
		protected(t, image)
		says(t, image, "saved domain vm", "virsh managedsave-remove vm")
	}
	harness.Run(t, "mv", h.Images+"/disk.img", h.Images+"/base.img").Fails(t, "Device or resource busy")
	if err := syscall.Kill(v.Status(t).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	protected(t, images[0])
	d.Start(t)
	protected(t, images[0])
	d.Virsh(t, "destroy").OK(t)
	free(t, images...)

	d.Start(t)
	d.Virsh(t, "managedsave").OK(t)
	protected(t, images[1])
	d.Virsh(t, "managedsave-remove").OK(t)
	free(t, images...)
}

// TestSaveIntoView: virsh save puts the state beside the disks. It is in use as they are, until the domain is restored.
func TestSaveIntoView(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	d, images := savedScene(t, h)
	state := filepath.Join(h.Images, "vm.state")
	images = append(images, state)
	d.Virsh(t, "save", state).OK(t)
	for _, image := range images {
		protected(t, image)
		says(t, image, "saved domain vm", "virsh restore "+state)
	}
	h.Virsh(t, "save-image-dumpxml", state).OK(t)
	harness.Sh(t, "EDITOR='sed -i s/restart/destroy/' virsh -q -c qemu:///system save-image-edit "+state).OK(t)
	protected(t, state)
	h.Virsh(t, "restore", state).OK(t)
	protected(t, images[0])
	d.Virsh(t, "destroy").OK(t)
	free(t, images...)
	harness.Run(t, "rm", state).OK(t)
}

// TestSavedBeforeTheMount: a state that lies in the view already when it is mounted.
func TestSavedBeforeTheMount(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	d, images := savedScene(t, h)
	state := filepath.Join(h.Images, "states", "vm.state")
	harness.Run(t, "mkdir", "-m", "711", filepath.Dir(state)).OK(t)
	d.Virsh(t, "save", state).OK(t)
	h.Mount(t)
	harness.Until(t, "the saved state is found", func() bool {
		return harness.Run(t, harness.Imgward(), "check", "truncate", images[0]).Exit == 3
	})
	for _, image := range append(images, state) {
		protected(t, image)
	}
	h.Virsh(t, "restore", state).OK(t)
	d.Virsh(t, "destroy").OK(t)
	free(t, append(images, state)...)
}

// TestSnapshotMemory: the memory of an external snapshot is in use while the snapshot's metadata names it.
func TestSnapshotMemory(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	d, _ := savedScene(t, h)
	memory := filepath.Join(h.Images, "vm.memory")
	d.Virsh(t, "snapshot-create-as", "before", "--memspec", "file="+memory+",snapshot=external").OK(t)
	d.Virsh(t, "destroy").OK(t)
	protected(t, memory)
	says(t, memory, "snapshot before of domain vm", "virsh snapshot-delete vm before")
	if status := harness.Run(t, harness.Imgward(), "status").OK(t); !strings.Contains(status, "vm.memory") {
		t.Errorf("status does not list it:\n%s", status)
	}
	d.Virsh(t, "snapshot-delete", "before", "--metadata").OK(t)
	free(t, memory)
}
