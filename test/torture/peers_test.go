package torture

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

// TestPeerDies shows what the tests of this package would see if a view did not survive: bindfs, killed once.
func TestPeerDies(t *testing.T) {
	h := harness.New(t)
	h.Blank(t, "vm.img", 64*harness.MiB)
	through := h.Image("through") // a mount below the directory of images, showing its parent
	harness.Run(t, "mkdir", through).OK(t)
	peer := exec.Command("bindfs", "-f", h.Images, through)
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "bindfs serves", func() bool { return len(harness.Mounts(t)) == 1 })
	t.Cleanup(func() { harness.Run(t, "umount", "-l", through) })
	g := h.Boot(t, "vm", harness.Disk{Target: "vda", File: through + "/vm.img", Cache: "none"})
	g.StartWriting(t, "vda")
	g.Wrote(t, "vda", 2)
	if err := peer.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	peer.Wait()
	harness.Until(t, "the guest has noticed", func() bool {
		return g.Agent.Do(t, wire.Request{Op: wire.OpProgress, Disk: "vda"}).Progress.Error != ""
	})
	lines := g.Agent.Do(t, wire.Request{Op: wire.OpErrors}).Lines
	if len(lines) == 0 || !strings.Contains(lines[0], "I/O error") {
		t.Errorf("the guest's kernel says nothing of it: %q", lines)
	}
	t.Logf("bindfs killed once: %d I/O errors in the guest", len(lines))
}
