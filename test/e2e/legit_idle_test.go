// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"imgward/test/harness"
)

// readers read the disk of a running guest in all the ways that people do.
func readers(t *testing.T, h *harness.Host) {
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.WhileWriting(t, "vda", func() {
		for _, script := range []string{
			`qemu-img info -U "$IMG"`,
			`qemu-img map -U "$IMG"`,
			`qemu-img measure -U -O raw "$IMG"`,
			`dd if="$IMG" of=/dev/null bs=1M`,
			`dd if="$IMG" of=/dev/null bs=1M iflag=direct`,
			`cp --sparse=always "$IMG" "$OUT/copy" && rm "$OUT/copy"`,
			`cat "$IMG" | sha256sum`,
			`tar -C "$DIR" -cSf "$OUT/copy.tar" . || [ $? = 1 ]; rm "$OUT/copy.tar"`, // 1: changed while it was read,
			`rsync -a "$IMG" "$OUT/" && rm "$OUT/$(basename "$IMG")"`,
			`python3 -c 'import mmap,sys; f=open(sys.argv[1]); mmap.mmap(f.fileno(),0,prot=1)[0]' "$IMG"`,
			`loop=$(losetup -f --show -r "$IMG") && losetup -d "$loop"`,
			`stat "$IMG"; ls -l "$DIR"; du "$IMG"; filefrag "$IMG"; getfattr -d -m - "$IMG"`,
		} {
			harness.Sh(t, "set -e; "+script, "IMG="+disk, "OUT="+h.Out, "DIR="+h.Images).OK(t)
		}
	})
	g.Finish(t, "vda", disk, "qcow2")
}

func qemuImgIdle(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 16*MiB)
	for _, args := range []string{
		"info $IMG", "map $IMG", "measure -O qcow2 $IMG",
		"convert -O qcow2 $IMG $IMG.base", "check $IMG.base",
		"create -q -f qcow2 -b $IMG.base -F qcow2 $IMG.middle", "create -q -f qcow2 -b $IMG.middle -F qcow2 $IMG.top",
		"resize -q $IMG.top 32M", "snapshot -c one $IMG.top", "snapshot -d one $IMG.top",
		"rebase -b $IMG.base -F qcow2 $IMG.top", "commit -q $IMG.top", "amend -o compat=1.1 $IMG.base",
		"convert -O raw $IMG.base $IMG", "resize -q -f raw --shrink $IMG 8M", "bench -q -f raw -w -c 10 $IMG",
		"dd -O raw bs=1M if=$IMG of=$IMG.dd",
	} {
		harness.Sh(t, "qemu-img "+args, "IMG="+disk).OK(t)
	}
}

// idleCommands are the commands of the refusal matrix: on an image that nobody uses each of them must do its work.
func idleCommands(t *testing.T, h *harness.Host) {
	for i, c := range refused {
		if c.virsh {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, h, fmt.Sprintf("idle%d", i))
			image := s.image(t, "vm.img")
			if c.format == "qcow2" {
				image = s.overlay(t, "vm.qcow2", image)
			}
			r := s.run(t, c, image)
			if c.name == "fallocate -c" && !harness.Native() {
				// fs/fuse/file.c lets through KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE only (Linux 6.18).
				r.Fails(t, "Operation not supported")
				return
			}
			r.OK(t)
		})
	}
}

func relabel(t *testing.T, h *harness.Host) {
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	g.WhileWriting(t, "vda", func() {
		harness.Sh(t, `set -e
			owner=$(stat -c %u:%g "$IMG")
			chown root:root "$IMG"; chown "$owner" "$IMG"
			chmod 644 "$IMG"; chmod 600 "$IMG"
			touch -c "$IMG"; touch -c -d 2001-01-01 "$IMG" # without -c it opens for writing first
			setfattr -n user.note -v x "$IMG"; setfattr -x user.note "$IMG"
			setfattr -n trusted.note -v x "$IMG"; setfattr -x trusted.note "$IMG"
			setfacl -m u:nobody:r "$IMG"; setfacl -b "$IMG"`, "IMG="+disk).OK(t)
	})
	g.Finish(t, "vda", disk, "raw")
}
