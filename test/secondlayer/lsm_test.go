// SPDX-License-Identifier: Apache-2.0

// Package secondlayer tests what protects images without a view of their directory.
package secondlayer

import (
	"os"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestPinned: what was declared is refused while the domain's process lives, and no longer, with nobody of imgward's there.
func TestPinned(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := harness.StockKernel(t).With(self).File("/bin/layer", self).Run(`
export LAYER=1
mount -t tmpfs t /mnt
dd if=/dev/zero of=/mnt/vm.img bs=1M count=4
sleep 1000 & vm=$!
layer load && layer use /mnt/vm.img $vm || exit 1
try() {
	dd if=/dev/zero of=/mnt/vm.img bs=1M count=1 conv=notrunc && echo "$1: written"
	mv /mnt/vm.img /mnt/new && echo "$1: renamed" && mv /mnt/new /mnt/vm.img
}
dd if=/mnt/vm.img of=/dev/null && echo running: read
try running
kill $vm; wait $vm
try stopped
layer remove; ls /sys/fs/bpf
`)
	t.Log(r.Stdout, r.Stderr)
	if want := "running: read\nstopped: written\nstopped: renamed\n"; r.Exit != 0 || !strings.HasPrefix(r.Stdout, want) {
		t.Errorf("exit %d, got\n%s\nwant\n%s", r.Exit, r.Stdout, want)
	}
	if strings.Contains(r.Stdout, "imgward\n") {
		t.Error("something is left in bpffs")
	}
	if !strings.Contains(r.Stderr, "/mnt/vm.img': Device or resource busy") {
		t.Error("not EBUSY")
	}
}
