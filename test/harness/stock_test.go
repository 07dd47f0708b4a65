// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"slices"
	"strings"
	"testing"

	"imgward/test/need"
)

// TestStockKernel: the guest on the old kernel has what the suites on it need, and a view mounts there; its script's output
// and exit code come back.
func TestStockKernel(t *testing.T) {
	need.Long(t)
	disk := t.TempDir() + "/disk.img"
	Run(t, "truncate", "-s", "64M", disk).OK(t)
	r := StockKernel(t).With(Imgward(), "mkfs.ext4").Disk(disk).
		Modules("fuse", "ext4", "overlay", "loop", "dm-mod", "dm-snapshot", "nfsd", "nfsv4").
		Run(`
uname -r; cat /sys/kernel/security/lsm; echo
cat /proc/filesystems /proc/devices
mkfs.ext4 -q /dev/vda && mkdir /images && mount -t ext4 /dev/vda /images && echo inside >/images/vm.img || exit 1
imgward mount /images && cat /images/vm.img && imgward status --json /images && imgward umount /images || exit 1
echo to stderr >&2
exit 7`)
	t.Log(r.Stdout)
	if r.Exit != 7 || strings.TrimSpace(r.Stderr) != "to stderr" {
		t.Fatalf("exit %d\nstdout: %s\nstderr: %s", r.Exit, r.Stdout, r.Stderr)
	}
	if !strings.HasPrefix(r.Stdout, "6.1.") {
		t.Errorf("not the old kernel: %.20s", r.Stdout)
	}
	words := strings.FieldsFunc(r.Stdout, func(c rune) bool { return strings.ContainsRune(" ,\t\n", c) })
	for _, want := range []string{"bpf", "overlay", "nfsd", "nfs4", "device-mapper", "fuse", "inside"} {
		if !slices.Contains(words, want) {
			t.Errorf("no %s", want)
		}
	}
	if !strings.Contains(r.Stdout, `"passthrough":false`) {
		t.Error("the view says nothing of a kernel without passthrough")
	}
}
