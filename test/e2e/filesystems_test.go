// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
)

// TestOtherFileSystems: file systems mounted below the directory, whose device numbers and leases differ: XFS, btrfs with
// a subvolume in it. There a domain is protected, before and after the mount of the view, and hidden writers are found.
func TestOtherFileSystems(t *testing.T) {
	if harness.Native() {
		return
	}
	for _, c := range []struct{ name, size, mkfs, sub string }{
		{"xfs", "320M", "mkfs.xfs -q", "mkdir"},
		{"btrfs", "128M", "mkfs.btrfs -q", "btrfs -q subvolume create"},
		{"tmpfs", "", "", "mkdir"},
	} {
		if c.name != "btrfs" && !need.All() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			h := harness.New(t)
			dir := h.Image("nested")
			must(t, os.Mkdir(dir, 0o711))
			mount := `mount -t tmpfs tmpfs "$DIR"`
			if c.mkfs != "" {
				mount = `truncate -s ` + c.size + ` "$DIR.fs"; ` + c.mkfs + ` "$DIR.fs"; mount -o loop "$DIR.fs" "$DIR"`
			}
			harness.Sh(t, "set -e; "+mount+`; `+c.sub+` "$DIR/sub"; chmod 711 "$DIR" "$DIR/sub"`, "DIR="+dir).OK(t)
			beneath := h.Beneath(t, dir)
			t.Cleanup(func() { must(t, unix.Unmount(beneath, unix.MNT_DETACH)) })

			early, late, other := h.Raw(t, "nested/sub/early.img", 8*MiB), h.Raw(t, "nested/sub/late.img", 8*MiB), h.Raw(t, "nested/sub/other.img", 8*MiB)
			h.Run(t, harness.Spec{Name: "early", Disks: []harness.Disk{{Target: "vda", File: early}}})
			h.Mount(t)
			h.Run(t, harness.Spec{Name: "late", Disks: []harness.Disk{{Target: "vda", File: late}}})
			for _, image := range []string{early, late} {
				protected(t, image)
			}
			for _, above := range []string{dir + "/sub", dir} {
				if r := harness.Run(t, "mv", above, above+".old"); r.Exit == 0 {
					t.Errorf("%s was renamed", above)
				}
			}
			harness.Sh(t, `mv "$IMG" "$IMG.new"; mv "$IMG.new" "$IMG"; dd if=/dev/zero of="$IMG" count=1 conv=notrunc`, "IMG="+other).OK(t)

			d := h.Define(t, harness.Spec{Name: "other", Disks: []harness.Disk{{Target: "vda", File: other}}})
			fifo := filepath.Join(t.TempDir(), "fifo")
			harness.Run(t, "mkfifo", fifo).OK(t)
			writer := harness.Spawn(t, filepath.Join(h.Dir, "writer.log"), "env", "IMG="+other, "FIFO="+fifo, "sh", "-c", mapping)
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			must(t, err)
			defer w.Close()
			d.Virsh(t, "start").Fails(t, "python3")
			w.Close()
			harness.Until(t, "the writer ends", func() bool { return !writer.Alive() })
			d.Start(t)
			protected(t, other)
		})
	}
}
