// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestSpareNames: a name that nobody who uses the image knows it by, of several, is anybody's; the names that are known
// stay, and so does the last one.
func TestSpareNames(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	base := h.Raw(t, "base.img", 8*MiB)
	overlay := h.Overlay(t, "over.qcow2", base, "raw")
	byHand := h.Raw(t, "hand.img", 8*MiB)
	must(t, os.Symlink(overlay, h.Image("linked.qcow2")))
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: h.Image("linked.qcow2"), Format: "qcow2"}}})
	bare(t, h, "spare", bareDrive+`file.filename="$IMG"`, byHand)
	for _, image := range []string{base, overlay, byHand} {
		kept := h.Identify(t, image)
		unhindered(t, v, func() {
			for _, script := range []string{
				`cp -al "$IMG" "$DIR/daily.0"; mv "$DIR/daily.0" "$DIR/daily.1"; rm "$DIR/daily.1"`,
				`ln "$IMG" "$DIR/over"; echo new >"$DIR/new"; mv "$DIR/new" "$DIR/over"; rm "$DIR/over"`,
				`mkdir "$DIR/tree"; ln "$IMG" "$DIR/tree/image"; mv "$DIR/tree" "$DIR/tree.old"; rm -r "$DIR/tree.old"`,
			} {
				harness.Sh(t, "set -e; "+script, "IMG="+image, "DIR="+h.Images).OK(t)
			}
		})
		unchanged(t, kept, h.Identify(t, image))
		protected(t, image)
		must(t, os.Link(image, image+".more"))
		protected(t, image) // the other name is none of the VM's
		if !harness.Native() {
			harness.Run(t, "dd", "if=/dev/zero", "of="+image+".more", "count=1").Fails(t, "Device or resource busy")
		}
		must(t, os.Remove(image+".more"))
	}
}

// TestLinkOutside: another name of an image, outside of the view, is one that no view can keep (the kernel's part of the second layer
// does: test/secondlayer). Who asks is told that it is in use, and that nothing protects it.
func TestLinkOutside(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	link := filepath.Join(h.Out, "second.img")
	must(t, os.Link(h.Beneath(t, disk), link))
	harness.Run(t, harness.Imgward(), "who", link).OK(t)
	if out := harness.Run(t, harness.Imgward(), "check", "write", link).OK(t); !strings.Contains(out, "nothing protects it") {
		t.Errorf("imgward check: %s", out)
	}
	protected(t, disk)
}
