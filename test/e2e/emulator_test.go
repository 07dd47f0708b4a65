// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// emulators are places and names of a domain's QEMU that are on no list.
var emulators = []struct{ name, path string }{
	{"in /opt", "opt/qemu/bin/qemu-system-x86_64"},
	{"under another name", "opt/acme/bin/machine-runner"},
}

// TestEmulatorElsewhere: the process that libvirt's status file names holds the domain's images, whatever it executes.
func TestEmulatorElsewhere(t *testing.T) {
	for _, e := range emulators {
		t.Run(e.name, func(t *testing.T) {
			h := harness.New(t)
			v := h.Mount(t)
			h.Emulator = h.InstallEmulator(t, e.path)
			disk := h.Qcow2(t, "vm.qcow2", 8*MiB)
			before := harness.Disk{Target: "vda", File: disk, Format: "qcow2"}
			var d *harness.Domain
			unhindered(t, v, func() {
				d = h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{before}})
				d.Virsh(t, "attach-disk", h.Raw(t, "hot.img", 8*MiB), "vdb", "--live").OK(t)
				ownDisk(t, d, "16M")
				// A package upgrade, a wrapper that is put in front: the program of a running VM moves away.
				must(t, os.Rename(h.Emulator, h.Emulator+".real"))
				ownDisk(t, d, "32M")
				must(t, os.Rename(h.Emulator+".real", h.Emulator))
			})
			protected(t, disk)
			d.Virsh(t, "destroy").OK(t)
			harness.Run(t, "rm", disk).OK(t)
		})
	}
}

// TestRefuseElsewhere tries commands on the disk of a guest whose QEMU is on no list.
func TestRefuseElsewhere(t *testing.T) {
	for i, e := range emulators {
		if i > 0 && !need.All() {
			break
		}
		t.Run(e.name, func(t *testing.T) {
			h := harness.New(t)
			v := h.Mount(t)
			h.Emulator = h.InstallEmulator(t, e.path)
			s, g := besieged(t, h)
			for _, victim := range victims {
				for _, c := range refused {
					if c.format != "" && c.format != victim.format || !slices.Contains(sample, c.name) && !need.All() {
						continue
					}
					t.Run(victim.name+"/"+c.name, func(t *testing.T) {
						refuse(t, v, s, c, victim, filepath.Join(s.dir, victim.name), ownName)
					})
				}
			}
			g.unharmed(t)
		})
	}
}

// TestLegitElsewhere does what must not be hindered with a QEMU that is on no list.
func TestLegitElsewhere(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	h.Emulator = h.InstallEmulator(t, emulators[1].path)
	for _, c := range chosen(0, core|again) {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
	}
}

// ownDisk has a domain's QEMU do to its disks what nobody else may: grow them, write where it has not yet.
func ownDisk(t *testing.T, d *harness.Domain, size string) {
	t.Helper()
	d.Virsh(t, "blockresize", "vda", size).OK(t)
	d.Virsh(t, "blockresize", "vdb", size).OK(t)
	d.Virsh(t, "snapshot-create-as", "--name", size, "--disk-only", "--no-metadata", "--diskspec", "vdb,snapshot=no").OK(t)
	d.Virsh(t, "blockcommit", "vda", "--active", "--wait", "--pivot").OK(t)
}

const bareDrive = `-device virtio-blk-pci,drive=a -drive if=none,id=a,discard=unmap,format=raw,file.driver=file,`

// unlisted are VMMs that no list has, started by hand. Each is given IMG, OUT, SOCK and VMM, a QEMU that lies elsewhere, and
// writes its pid to PID.
var unlisted = []struct{ name, script string }{
	{"QEMU in /opt, without locking", `"$VMM"` + bareArgs + bareDrive + `file.locking=off,file.filename="$IMG" & echo $! >"$PID"`},
	{"QEMU in namespaces of its own", `unshare -m -p -f --kill-child "$VMM"` + bareArgs +
		bareDrive + `file.locking=off,file.filename="$IMG" & echo $! >"$PID"`},
	{"descriptor of a launcher that has ended", `exec 7<>"$IMG" 8<"$IMG"; "$VMM"` + bareArgs + `-add-fd fd=7,set=1 -add-fd fd=8,set=1 ` +
		bareDrive + `file.locking=off,file.filename=/dev/fdset/1 & echo $! >"$PID"`},
	{"descriptor of a launcher that has ended, with locks", `exec 7<>"$IMG" 8<"$IMG"; "$VMM"` + bareArgs + `-add-fd fd=7,set=1 -add-fd fd=8,set=1 ` +
		bareDrive + `file.locking=on,file.filename=/dev/fdset/1 & echo $! >"$PID"`},
	{"a program that holds a KVM machine", `exec 7<>"$IMG"; python3 -c '
import fcntl, os, time
vm = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xae01, 0)
open(os.environ["SOCK"], "w").close()
time.sleep(1000)' & echo $! >"$PID"`},
}

// TestUnlisted: a VMM that is on no list is evidence with what it has open, and keeps that, whoever opened it.
func TestUnlisted(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	vmm := h.InstallEmulator(t, "opt/qemu/bin/qemu-system-x86_64")
	for i, c := range unlisted {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.script, "/dev/kvm") {
				need.KVM(t)
			}
			s := newScene(t, h, fmt.Sprintf("unlisted%d", i))
			image := s.image(t, "vm.img")
			socket := filepath.Join(harness.Sockets, fmt.Sprintf("unlisted%d", i))
			pidFile := filepath.Join(h.Out, "pid")
			// A shell of its own, which ends: whoever opened the image for the VMM is gone.
			out, err := os.Create(filepath.Join(h.Dir, "unlisted.log"))
			must(t, err)
			defer out.Close()
			shell := harness.Spawn(t, out.Name(), "env", "IMG="+image, "SOCK="+socket, "PID="+pidFile, "VMM="+vmm, "sh", "-c", c.script)
			harness.Until(t, "the launcher ends", func() bool { return !shell.Alive() })
			text, err := os.ReadFile(pidFile)
			must(t, err)
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			must(t, err)
			end := func() { _ = syscall.Kill(pid, syscall.SIGKILL) }
			defer end()
			harness.Until(t, "it runs", func() bool {
				if syscall.Kill(pid, 0) != nil {
					t.Fatal(shell.Logged(t))
				}
				_, err := os.Stat(socket)
				return err == nil
			})
			if strings.Contains(c.script, "$VMM") {
				monitor(t, socket, "info status") // it answers when everything is open
			}
			before := h.Identify(t, image)
			protected(t, image)
			for _, c := range refused {
				if c.virsh || c.format == "qcow2" || !slices.Contains(sample, c.name) && !need.All() {
					continue
				}
				s.run(t, c, image).Fails(t, c.message())
				unchanged(t, before, h.Identify(t, image))
			}
			if uses := v.InUse(t)[s.name(image)]; len(uses) == 0 {
				t.Error("status does not show it in use")
			}
			if strings.Contains(c.script, "$VMM") {
				unhindered(t, v, func() { monitor(t, socket, `qemu-io a "discard 0 1M"`) })
				if after := h.Identify(t, image); after.Blocks >= before.Blocks {
					t.Error("nothing was discarded")
				}
			}
			end()
			os.Remove(socket)
			harness.Until(t, "it can be removed", func() bool { return harness.Run(t, "rm", "-f", image).Exit == 0 })
		})
	}
}

// monitor has a bare QEMU do something; what it prints is in the failure.
func monitor(t *testing.T, socket, command string) {
	t.Helper()
	said := harness.Cmd{
		Args:  []string{"socat", "-t2", "-", "UNIX-CONNECT:" + socket},
		Stdin: strings.NewReader(command + "\n"),
	}.Run(t).OK(t)
	if strings.Contains(said, "Error") || strings.Contains(said, "failed") {
		t.Errorf("%s: %s", command, said)
	}
}
