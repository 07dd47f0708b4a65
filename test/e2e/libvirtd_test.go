// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
	"imgward/test/need"
)

// protected checks that a disk of the running domain cannot be destroyed.
func protected(t *testing.T, image string) {
	t.Helper()
	if harness.Native() {
		return
	}
	harness.Run(t, "dd", "if=/dev/zero", "of="+image, "count=1").Fails(t, "Device or resource busy")
	harness.Run(t, "rm", "-f", image).Fails(t, "Device or resource busy")
	harness.Run(t, "mv", image, image+".old").Fails(t, "Device or resource busy")
}

// TestLibvirtdGone: domains run on without libvirtd, and so does protection.
func TestLibvirtdGone(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	for _, end := range []struct {
		name string
		do   func()
	}{
		{"restarted", func() { h.Libvirtd().Stop(t) }},
		{"killed", func() { h.Libvirtd().Kill(t) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			g.WhileWriting(t, "vda", func() {
				end.do()
				protected(t, disk)
				h.StartLibvirtd(t)
				protected(t, disk)
			})
		})
	}
	unhindered(t, v, func() { g.Finish(t, "vda", disk, "qcow2") })
}

// TestLibvirtdKilledDuring kills libvirtd in the middle of operations. Whatever libvirt makes of that, the guest must go
// on, its disk must stay protected, and the next libvirtd must be able to go on with the work.
func TestLibvirtdKilledDuring(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	for _, c := range []struct {
		name string
		args []string // of virsh, after the domain
	}{
		{"snapshot", []string{"snapshot-create-as", "killed", "--disk-only", "--no-metadata"}},
		{"blockcommit", []string{"blockcommit", "vda", "--active", "--wait", "--pivot", "--bandwidth", "8"}},
		{"blockpull", []string{"blockpull", "vda", "--wait", "--bandwidth", "8"}},
		{"blockcopy", []string{"blockcopy", "vda", "COPY", "--wait", "--pivot", "--transient-job", "--bandwidth", "8"}},
		{"hot-plug", []string{"attach-disk", "SECOND", "vdb"}},
		{"managedsave", []string{"managedsave"}},
	} {
		if need.All() || c.name == "blockcommit" || c.name == "hot-plug" {
			t.Run(c.name, func(t *testing.T) { killedDuring(t, h, v, c.args) })
		}
	}
}

func killedDuring(t *testing.T, h *harness.Host, v *harness.View, args []string) {
	g := chain(t, h)
	defer cleanImages(t, h) // after the domain is gone
	h.Raw(t, "second.img", 8*MiB)
	unhindered(t, v, func() { killLibvirtdDuring(t, h, g, args) })
	for _, name := range []string{"base.qcow2", "top.qcow2"} {
		if g.hasOpen(h.Image(name)) { // a pull that came to its end needs no base any more
			protected(t, h.Image(name))
		}
	}
	unhindered(t, v, func() {
		h.StartLibvirtd(t)
		g.settle(t, h)
	})
}

func killLibvirtdDuring(t *testing.T, h *harness.Host, g *guest, args []string) {
	t.Helper()
	place := strings.NewReplacer("COPY", h.Image("copy.qcow2"), "SECOND", h.Image("second.img"))
	for i, a := range args {
		args[i] = place.Replace(a)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Virsh(t, args[0], args[1:]...) // fails: its libvirtd dies
	}()
	// Long enough for most jobs to have begun, short enough that none has ended; either is fine.
	time.Sleep(150 * time.Millisecond)
	h.Libvirtd().Kill(t)
	<-done
}

// hasOpen reports whether the domain's process is there, without asking libvirtd, stays, and has an image open. (The pid
// file stays behind when libvirtd is killed after a managedsave has ended QEMU, or while QEMU is ending.)
func (g *guest) hasOpen(image string) bool {
	text, err := os.ReadFile("/run/libvirt/qemu/" + g.Name + ".pid")
	if err != nil {
		return false
	}
	time.Sleep(500 * time.Millisecond)
	fds, _ := filepath.Glob("/proc/" + strings.TrimSpace(string(text)) + "/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == image {
			return true
		}
	}
	return false
}

// settle brings the domain to an orderly end after its libvirtd was killed: jobs ended, the guest well, then off.
func (g *guest) settle(t *testing.T, h *harness.Host) {
	t.Helper()
	if g.State(t) == "shut off" { // saved
		g.Start(t)
	}
	g.Virsh(t, "blockjob", "vda", "--abort") // if there is one
	g.Agent.Ping(t)
	g.Agent.Healthy(t, "vda")
	// libvirt 9.0 dies now and then of a job that ended while it was away, some time after it has come back. The next one lives.
	harness.Until(t, "the domain is off", func() bool {
		if !h.Libvirtd().Alive() {
			h.StartLibvirtd(t)
		}
		g.Virsh(t, "shutdown", "--mode", "acpi")
		return strings.TrimSpace(g.Virsh(t, "domstate").Stdout) == "shut off"
	})
}

// cleanImages removes all images, which nobody may use any more.
func cleanImages(t *testing.T, h *harness.Host) {
	t.Helper()
	harness.Sh(t, `rm -rf "$DIR"/*`, "DIR="+h.Images).OK(t)
}
