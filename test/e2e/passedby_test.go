// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestPoolOverView: libvirt itself mounts over the view, for a storage pool whose target it is. The VM goes on, and that
// everybody else passes by the view is an error.
func TestPoolOverView(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{"is covered by ext4"}
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	file := filepath.Join(h.Dir, "pool.ext4")
	dev := harness.Sh(t, `truncate -s 16M "$F" && mkfs.ext4 -q "$F" && losetup --show -f "$F"`, "F="+file).OK(t)
	t.Cleanup(func() { harness.Run(t, "losetup", "-d", dev).OK(t) })

	h.Virsh(t, "pool-define-as", "over", "fs", "--source-dev", dev, "--target", h.Images).OK(t)
	t.Cleanup(func() { h.Virsh(t, "pool-undefine", "over").OK(t) })
	h.Virsh(t, "pool-start", "over").OK(t)
	if _, err := os.Stat(disk); err == nil {
		t.Fatal("the pool does not cover the view")
	}
	harness.Until(t, "the log has it as an error", func() bool {
		return strings.Contains(v.Logged(t), `level=ERROR msg="the view on `+h.Images+` is covered by ext4`)
	})
	if out := harness.Run(t, harness.Imgward(), "status").OK(t); !strings.Contains(out, "is covered by ext4") || !strings.Contains(out, "vda") {
		t.Errorf("status:\n%s", out)
	}
	h.Virsh(t, "pool-destroy", "over").OK(t)
	protected(t, disk)
}

// TestVMBelow: a file system is mounted below the view after it, and a VM started on it: its disk is protected as any.
func TestVMBelow(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{"the worker died"}
	dir := h.Image("later")
	harness.Sh(t, `mkdir "$DIR" && mount -t tmpfs -o mode=711 later "$DIR"`, "DIR="+dir).OK(t)
	harness.Until(t, "it is part of the view", func() bool { return strings.Contains(v.Logged(t), "is part of the view now") })
	disk := h.Raw(t, filepath.Join("later", "vm.img"), 8*MiB)
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	protected(t, disk)
	worker := v.Status(t).PID
	harness.Run(t, "kill", "-9", strconv.Itoa(worker)).OK(t)
	harness.Until(t, "a successor serves", func() bool { return v.Status(t).PID != worker })
	protected(t, disk)
	d.Virsh(t, "destroy").OK(t)
	v.End(t)
	if _, err := os.Stat(disk); err != nil {
		t.Errorf("after the end of the view: %v", err)
	}
	harness.Run(t, "umount", dir).OK(t)
}

// TestViewTakenAway: the view is unmounted under a running VM, as pool-destroy does with a pool that it is the mount of.
// That is an error, and imgward mount brings the view back with all that the VM has open.
func TestViewTakenAway(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{"is no longer mounted on"}
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	protected(t, disk)
	harness.Run(t, "umount", "-l", h.Images).OK(t)
	harness.Until(t, "the log has it as an error", func() bool {
		return strings.Contains(v.Logged(t), `level=ERROR msg="the view is no longer mounted on `+h.Images)
	})
	if out := harness.Run(t, harness.Imgward(), "status").OK(t); !strings.Contains(out, "NOT REACHED") || !strings.Contains(out, "vda") {
		t.Errorf("status:\n%s", out)
	}
	harness.Run(t, harness.Imgward(), "mount", h.Images).OK(t)
	protected(t, disk)
	if holds := harness.Run(t, harness.Imgward(), "umount", h.Images); holds.Exit == 0 {
		t.Error("umount does not know that the VM holds its disk")
	}
}
