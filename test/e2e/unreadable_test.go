// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imgward/test/harness"
)

// TestUnreadableDomain: of a running domain nothing can be read but its pid. What its process has open is protected, with
// or without a view between, and no other image is.
func TestUnreadableDomain(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	before, base := h.Raw(t, "before.img", 8*MiB), h.Raw(t, "base.img", 8*MiB)
	through, free := h.Overlay(t, "through.qcow2", base, "raw"), h.Raw(t, "free.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "early", Disks: []harness.Disk{{Target: "vda", File: before}}})
	v := h.Mount(t)
	v.Expected = []string{statusDir, "the worker died"}
	h.Run(t, harness.Spec{Name: "late", Disks: []harness.Disk{{Target: "vda", File: through, Format: "qcow2"}}})
	for _, name := range []string{"early", "late"} {
		if err := os.WriteFile(filepath.Join(statusDir, name+".xml"), []byte("<domstatus"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(v.Status(t).PID, syscall.SIGKILL); err != nil { // its successor knows nothing from before
		t.Fatal(err)
	}
	for _, image := range []string{before, through, base} {
		protected(t, image)
	}
	said := harness.Run(t, harness.Imgward(), "check", "truncate", before)
	if out := said.Stdout + said.Stderr; !strings.Contains(out, filepath.Join(statusDir, "early.xml")) || !strings.Contains(out, "domain early") {
		t.Errorf("the file that cannot be read is not named: %s", out)
	}
	harness.Run(t, "dd", "if=/dev/zero", "of="+free, "count=1").OK(t)
	harness.Run(t, "mv", free, free+".old").OK(t)
	harness.Run(t, "rm", free+".old").OK(t)
}

// TestUnreadableWithoutPID: nothing is known of a domain, not even whether it runs. New files are made all the same, and
// the refusal says which file to look at; a pid file that names a dead process ends it.
func TestUnreadableWithoutPID(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	disk, src := h.Raw(t, "vm.img", 8*MiB), h.Raw(t, "src.img", MiB)
	v := h.Mount(t)
	v.Expected = []string{statusDir}
	ghost := filepath.Join(statusDir, "ghost.xml")
	if err := os.WriteFile(ghost, []byte("<domstatus"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(ghost)
	protected(t, disk)
	said := harness.Run(t, harness.Imgward(), "check", "truncate", disk)
	for _, part := range []string{ghost, "look at", "virsh suspend", "remove it"} {
		if !strings.Contains(said.Stdout+said.Stderr, part) {
			t.Errorf("the refusal does not say %q: %s%s", part, said.Stdout, said.Stderr)
		}
	}
	h.Virsh(t, "pool-create-as", "view", "dir", "--target", h.Images).OK(t)
	defer h.Virsh(t, "pool-destroy", "view")
	for _, script := range []string{
		"qemu-img create -f qcow2 $DIR/new.qcow2 8M",
		"qemu-img create -f raw -o preallocation=falloc $DIR/new.raw 1M",
		"qemu-img convert -O qcow2 $SRC $DIR/new.qcow2",
		"cp --sparse=always $SRC $DIR/new.img",
		"truncate -s 1M $DIR/new.img",
		"virsh -q -c qemu:///system vol-create-as view new.qcow2 8M --format qcow2",
		"mkfs.ext4 -q $DIR/new.img 4M",
	} {
		harness.Sh(t, script+"\nrm $DIR/new.*", "DIR="+h.Images, "SRC="+src).OK(t)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	pidfile := filepath.Join(statusDir, "ghost.pid")
	if err := os.WriteFile(pidfile, []byte(strconv.Itoa(ended.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(pidfile)
	if err := os.WriteFile(ghost, []byte("<domstatus>"), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "count=1").OK(t)
}
