// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
)

// byHandBeside are helpers that somebody starts on the disk of a running VM. Each is given IMG and SOCK, and serves what it
// could open.
var byHandBeside = []struct {
	name, script string
	user         harness.Disk // what the domain says of its disk
	opens        bool         // QEMU's locks or the view's keep it from writing, not from opening
	writes       bool
}{
	{"qemu-nbd", `exec qemu-nbd -t -f raw -k "$SOCK" "$IMG"`, harness.Disk{}, false, false}, // QEMU's own locks
	{"without taking locks", storageDaemon("off"), harness.Disk{}, true, false},
	{"sharing the disk", storageDaemon("off"), harness.Disk{Shareable: true, Cache: "none"}, true, true},
}

func storageDaemon(locking string) string {
	return `exec qemu-storage-daemon --blockdev file,node-name=disk,filename="$IMG",locking=` + locking +
		` --nbd-server addr.type=unix,addr.path="$SOCK" --export nbd,id=e,node-name=disk,name=,writable=on`
}

// TestHelperByHand: a VMM that does not hold the image does not write to it, until a lock which excludes others has come
// through its handle or the domain shares the disk.
func TestHelperByHand(t *testing.T) {
	h := harness.New(t)
	h.Mount(t)
	for i, c := range byHandBeside {
		t.Run(c.name, func(t *testing.T) {
			c.user.Target, c.user.File = "vda", h.Raw(t, "vm.img", 8*MiB)
			d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{c.user}})
			before := h.Identify(t, c.user.File)
			opened, wrote := helper(t, h, c.script, c.user.File, i)
			if !harness.Native() && (opened != c.opens || wrote != c.writes) {
				t.Errorf("opened %v, wrote %v; want %v, %v", opened, wrote, c.opens, c.writes)
			}
			if changed := h.Identify(t, c.user.File).Sum != before.Sum; changed != wrote {
				t.Errorf("the helper wrote: %v, the image changed: %v", wrote, changed)
			}
			d.Virsh(t, "destroy").OK(t)
			must(t, os.Remove(c.user.File))
		})
	}
}

// TestHelperBesideNoLocks: where the one that uses the image takes no locks, nothing would keep the two apart.
func TestHelperBesideNoLocks(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	h.Mount(t)
	image := h.Raw(t, "vm.img", 8*MiB)
	vmm := bare(t, h, "user", `-drive if=none,id=a,format=raw,file.driver=file,file.locking=off,file.filename="$IMG"`, image)
	before := h.Identify(t, image)
	for i, script := range []string{`exec qemu-nbd -t -f raw -k "$SOCK" "$IMG"`, storageDaemon("on"), `exec qemu-io -f raw -c "write 0 64k" "$IMG"`} {
		if opened, wrote := helper(t, h, script, image, 10+i); opened || wrote {
			t.Errorf("%s: opened %v, wrote %v", script, opened, wrote)
		}
	}
	unchanged(t, before, h.Identify(t, image))
	vmm.Kill(t)
}

// helper starts one, and writes the image's first 64 KiB through it.
func helper(t *testing.T, h *harness.Host, script, image string, n int) (opened, wrote bool) {
	t.Helper()
	socket := filepath.Join(harness.Sockets, fmt.Sprintf("helper%d", n))
	defer os.Remove(socket)
	p := harness.Spawn(t, filepath.Join(h.Dir, fmt.Sprintf("helper%d.log", n)), "env", "IMG="+image, "SOCK="+socket, "sh", "-c", script)
	harness.Until(t, "the helper serves, or ends", func() bool {
		_, err := os.Stat(socket)
		return err == nil || !p.Alive()
	})
	r := harness.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", "-c", "flush", "nbd+unix:///?socket="+socket)
	p.Stop(t)
	refused := strings.Contains(p.Logged(t), "Could not open") || strings.Contains(p.Logged(t), "Failed to get")
	return !refused, r.Exit == 0 && !strings.Contains(r.Stdout+r.Stderr, "failed")
}

// bare starts a QEMU without libvirt, and waits for its monitor.
func bare(t *testing.T, h *harness.Host, name, options, image string) *harness.Daemon {
	t.Helper()
	socket := filepath.Join(harness.Sockets, name)
	vmm := h.Emulator
	if vmm == "" {
		vmm = "qemu-system-x86_64"
	}
	p := harness.Spawn(t, filepath.Join(h.Dir, name+".log"), "env", "IMG="+image, "SOCK="+socket, "DIR="+h.Images, "sh", "-c",
		"exec "+vmm+bareArgs+options)
	harness.Until(t, "QEMU runs", func() bool {
		if !p.Alive() {
			t.Fatal(p.Logged(t))
		}
		_, err := os.Stat(socket)
		return err == nil
	})
	t.Cleanup(func() { os.Remove(socket) })
	monitor(t, socket, "info status") // it answers when everything is open
	return p
}

// TestMigrationIn: the source's locks do not keep the destination from opening the image, wherever its QEMU lies. It writes
// when the source has let go.
func TestMigrationIn(t *testing.T) {
	for _, place := range []string{"", "opt/qemu/bin/qemu-system-x86_64"} {
		t.Run("in "+place, func(t *testing.T) {
			h := harness.NewFiles(t)
			v := h.Mount(t)
			if place != "" {
				h.Emulator = h.InstallEmulator(t, place)
			}
			image := h.Raw(t, "vm.img", 8*MiB)
			drive := bareDrive + `file.filename="$IMG" `
			unhindered(t, v, func() {
				source := bare(t, h, "source", drive, image)
				channel := filepath.Join(harness.Sockets, "channel")
				bare(t, h, "target", drive+"-incoming unix:"+channel, image)
				protected := h.Identify(t, image)
				harness.Until(t, "it listens", func() bool { _, err := os.Stat(channel); return err == nil })
				monitor(t, filepath.Join(harness.Sockets, "source"), "migrate unix:"+channel)
				os.Remove(channel)
				unchanged(t, protected, h.Identify(t, image))
				monitor(t, filepath.Join(harness.Sockets, "target"), "cont") // only now does it let nobody else write
				monitor(t, filepath.Join(harness.Sockets, "target"), `qemu-io a "write -P 7 0 64k"`)
				source.Kill(t)
				monitor(t, filepath.Join(harness.Sockets, "target"), `qemu-io a "write -P 8 64k 64k"`)
				if now := h.Identify(t, image); now.Sum == protected.Sum {
					t.Error("nothing was written")
				}
			})
			protected(t, image)
		})
	}
}

// TestReadersAreNoWriters: whoever only reads an image has no part in the locks that others hold on it.
func TestReadersAreNoWriters(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	base := h.Qcow2(t, "base.qcow2", 8*MiB)
	overlay := h.Overlay(t, "over.qcow2", base, "qcow2")
	for _, c := range []struct{ name, script string }{
		{"commit", `qemu-img commit -q "$OVER"`},
		{"rebase", `qemu-img rebase -q -f qcow2 -b "$BASE" -F qcow2 "$OVER"`},
		{"resize", `qemu-img resize -q "$BASE" 16M`},
		{"write", `qemu-io -c "write 0 64k" "$OVER"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, image := range []string{base, overlay} {
				f, err := os.Open(image)
				must(t, err)
				defer f.Close()
			}
			unhindered(t, v, func() { harness.Sh(t, c.script, "BASE="+base, "OVER="+overlay).OK(t) })
		})
	}
}

// TestNoImages: what a VMM has open and is no disk is anybody's: its log, its pid file, what its serial port prints.
func TestNoImages(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	image := h.Raw(t, "vm.img", 8*MiB)
	bare(t, h, "notes", bareDrive+`file.filename="$IMG" -pidfile "$DIR/vm.pid" -D "$DIR/vm.log" -d guest_errors `+
		`-chardev file,id=s,path="$DIR/serial.log" -serial chardev:s -chardev file,id=t,append=on,path="$DIR/more.log" -serial chardev:t`, image)
	protected(t, image)
	for path := range v.InUse(t) {
		if path != "vm.img" {
			t.Errorf("status: %s is in use", path)
		}
	}
	for _, name := range []string{"vm.pid", "serial.log", "more.log", "vm.log"} {
		if _, err := os.Stat(h.Image(name)); err != nil {
			t.Errorf("QEMU made no %s", name)
		}
		unhindered(t, v, func() {
			harness.Run(t, "truncate", "-s", "0", h.Image(name)).OK(t)
			harness.Run(t, "rm", h.Image(name)).OK(t)
		})
	}
}

// TestTouch: to set the times of a running disk is free, and touch(1) opens it for writing to do so.
func TestTouch(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	image := h.Raw(t, "vm.img", 8*MiB)
	bare(t, h, "touched", bareDrive+`file.filename="$IMG"`, image)
	unhindered(t, v, func() {
		harness.Run(t, "touch", "-d", "2001-02-03 04:05:06 UTC", image).OK(t)
		if got := harness.Run(t, "date", "-u", "-r", image, "+%F %T").OK(t); got != "2001-02-03 04:05:06" {
			t.Errorf("its time is %s", got)
		}
	})
	before := h.Identify(t, image)
	harness.Run(t, "dd", "if=/dev/zero", "of="+image, "count=1", "conv=notrunc", "oflag=nonblock").Fails(t, "Device or resource busy")
	unchanged(t, before, h.Identify(t, image))
}

// TestExporter: a program that has a VMM write into a file which it writes itself has them meet on purpose. So has a fork of
// it, about to execute something else, which has its parent's descriptors until then.
func TestExporter(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	archive := h.Raw(t, "export.ova", 8*MiB)
	socket := filepath.Join(harness.Sockets, "export")
	unhindered(t, v, func() {
		harness.Sh(t, `exec python3 -c '
import os, subprocess, time
archive = open(os.environ["IMG"], "r+b")
archive.write(b"header")
archive.flush()
wait, end = os.pipe()
if os.fork() == 0:
    os.close(end)
    os.read(wait, 1)
    os._exit(0)
nbd = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", os.environ["SOCK"], "json:{\"driver\":\"raw\",\"offset\":65536,\"file\":{\"driver\":\"file\",\"filename\":\"%s\"}}" % os.environ["IMG"]])
while not os.path.exists(os.environ["SOCK"]):
    assert nbd.poll() is None
    time.sleep(0.01)
subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", "nbd+unix:///?socket=" + os.environ["SOCK"]], check=True)
nbd.wait()
archive.seek(0, 2)
archive.write(b"trailer")'`, "IMG="+archive, "SOCK="+socket).OK(t)
	})
}

// TestExporterForkOpened: what a fork opened by itself is not what its parent gave it, so the parent's VMM meets a second writer.
func TestExporterForkOpened(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	image := h.Raw(t, "vm.img", 8*MiB)
	since := time.Now()
	harness.Sh(t, `exec python3 -c '
import os, subprocess, sys
opened, open_ = os.pipe()
wait, end = os.pipe()
if os.fork() == 0:
    os.close(end)
    f = open(os.environ["IMG"], "r+b")
    os.write(open_, b"x")
    os.read(wait, 1)
    os._exit(0)
os.read(opened, 1)
r = subprocess.run(["qemu-nbd", "-f", "raw", "-k", os.environ["SOCK"], os.environ["IMG"]], timeout=60)
sys.exit(0 if r.returncode else "the VMM has opened what another writes")'`, "IMG="+image, "SOCK="+filepath.Join(harness.Sockets, "fork")).OK(t)
	if len(v.Refusals(t, since)) == 0 {
		t.Error("no refusal was told")
	}
}
