// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

const statusDir = "/run/libvirt/qemu"

// TestStatusDirAppears: a view that was mounted before libvirt ever ran notices its domains.
func TestStatusDirAppears(t *testing.T) {
	if err := os.RemoveAll("/run/libvirt"); err != nil {
		t.Fatal(err)
	}
	h := harness.NewFiles(t)
	h.Mount(t)
	h.StartLibvirt(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	protected(t, disk)
	d.Virsh(t, "destroy").OK(t)
	harness.Run(t, "rm", disk).OK(t)
}

// badStatus are ways in which a status file can be bad. make puts it at path; good is the domain's real one.
var badStatus = []struct {
	name string
	make func(path string, good []byte) error
}{
	{"empty", func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) }},
	{"not XML", func(path string, _ []byte) error { return os.WriteFile(path, []byte("\x00\xff<<<"), 0o600) }},
	{"another document", func(path string, _ []byte) error { return os.WriteFile(path, []byte("<a><b/></a>"), 0o600) }},
	{"truncated", func(path string, good []byte) error { return os.WriteFile(path, good[:len(good)/2], 0o600) }},
	{"no closing tag", func(path string, good []byte) error { return os.WriteFile(path, good[:len(good)-5], 0o600) }},
	{"huge", func(path string, good []byte) error {
		return os.WriteFile(path, append(bytes.Repeat([]byte(" "), 256*MiB), good...), 0o600)
	}},
	{"deep", func(path string, good []byte) error {
		deep := strings.Repeat("<backingStore type='file'><source file='/x'/>", 100_000)
		return os.WriteFile(path, bytes.Replace(good, []byte("<backingStore/>"), []byte(deep), 1), 0o600)
	}},
	{"entity bomb", func(path string, good []byte) error {
		bomb := "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;'>]>"
		return os.WriteFile(path, append([]byte(bomb), bytes.Replace(good, []byte("<name>"), []byte("<name>&c;"), 1)...), 0o600)
	}},
	{"a directory", func(path string, _ []byte) error { return os.Mkdir(path, 0o700) }},
	{"a FIFO without a writer", func(path string, _ []byte) error { return unix.Mkfifo(path, 0o600) }},
	{"a symlink to itself", func(path string, _ []byte) error { return os.Symlink("vm.xml", path) }},
	{"a symlink into the view", nil}, // made below: it needs the view's directory
}

// TestBadStatusFile spoils the status file of a running domain: what was known of it must stay protected, the daemon must
// go on, and status must say what is wrong.
func TestBadStatusFile(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{statusDir}
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	path := filepath.Join(statusDir, "vm.xml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range badStatus {
		t.Run(c.name, func(t *testing.T) {
			defer restore(t, path, good)
			if c.make == nil {
				c.make = func(path string, good []byte) error {
					inside := h.Image("status.xml")
					return errors.Join(os.WriteFile(inside, good, 0o600), os.Symlink(inside, path))
				}
			}
			if err := c.make(path+".new", good); err != nil {
				t.Fatal(err)
			}
			replace(t, path)
			protected(t, disk)
			if status := harness.Run(t, harness.Imgward(), "status", h.Images).OK(t); c.name != "a symlink into the view" &&
				!strings.Contains(status, "vm.xml") {
				t.Errorf("status does not say that vm.xml cannot be read:\n%s", status)
			}
		})
	}
}

// TestUnknownDomain: a status file of which nothing was ever known could be about any image, so all are protected, and
// virtual machines are not hindered by that.
func TestUnknownDomain(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{statusDir}
	disk := h.Raw(t, "vm.img", 8*MiB)
	ghost := filepath.Join(statusDir, "ghost.xml")
	if err := os.WriteFile(ghost, []byte("<domstatus"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(ghost)
	harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "count=1").Fails(t, "Device or resource busy")
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	d.Virsh(t, "destroy").OK(t)
	if err := os.Remove(ghost); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "count=1").OK(t)
}

// TestImageLoop: a chain that bites its own tail ends the walk, not the daemon.
func TestImageLoop(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	v.Expected = []string{"loop"}
	one, two := h.Qcow2(t, "one.qcow2", 8*MiB), h.Qcow2(t, "two.qcow2", 8*MiB)
	for image, backing := range map[string]string{one: two, two: one} {
		harness.Run(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, image).OK(t)
	}
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	harness.Run(t, harness.Imgward(), "who", one)
	harness.Run(t, "rm", one, two).OK(t)
	protected(t, disk)
}

// replace puts PATH.new in the place of path at one stroke, as libvirt does; only a directory cannot replace a file.
func replace(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path+".new", path); err != nil {
		if err := errors.Join(os.Remove(path), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
}

func restore(t *testing.T, path string, good []byte) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.WriteFile(path+".new", good, 0o600)); err != nil {
		t.Fatal(err)
	}
	replace(t, path)
}

// TestStatusFilesGone: somebody removes libvirt's directory under running domains. What a VMM has open stays protected.
func TestStatusFilesGone(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	base := h.Raw(t, "base.img", 8*MiB)
	over := h.Overlay(t, "over.qcow2", base, "raw")
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: over, Format: "qcow2"}}})
	aside := statusDir + ".aside"
	if err := os.Rename(statusDir, aside); err != nil {
		t.Fatal(err)
	}
	protected(t, over)
	protected(t, base)
	if err := os.Rename(aside, statusDir); err != nil {
		t.Fatal(err)
	}
	d.Virsh(t, "destroy").OK(t)
	harness.Run(t, "rm", over, base).OK(t)
}
