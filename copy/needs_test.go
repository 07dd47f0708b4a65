// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"path/filepath"
	"testing"

	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
)

// TestNeedsOtherFiles: a copy that cannot be used without others is not made silently.
func TestNeedsOtherFiles(t *testing.T) {
	src, dst := testimg.Dirs(t)
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", src+"/base.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", src+"/overlay.qcow2")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+src+"/data.raw", src+"/outside.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", src+"/flat.vmdk", "1M")
	for image, needs := range map[string]string{
		"base.qcow2": "", "overlay.qcow2": src + "/base.qcow2", "outside.qcow2": src + "/data.raw", "flat.vmdk": src + "/flat-flat.vmdk",
	} {
		for _, alone := range []bool{false, true} {
			var log testimg.Log
			to := filepath.Join(dst, image)
			mustCopy(t, filepath.Join(src, image), to, func(o *Options) { o.Log, o.Alone = log.Logger(), alone })
			testimg.Remove(t, to)
			said := log.Has("needs other files") && log.Has(needs)
			if want := needs != "" && !alone; said != want {
				t.Errorf("%s, alone: %v: said: %v, want %v (%q)", image, alone, said, want, log.Lines)
			}
		}
	}
}
