// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

// peers are other file systems that show a directory: how to start one, in the foreground, over from at to.
var peers = []struct {
	name  string
	start func(t *testing.T, h *harness.Host, from, to string) *exec.Cmd
}{
	{"bindfs", func(_ *testing.T, _ *harness.Host, from, to string) *exec.Cmd {
		return exec.Command("bindfs", "-f", from, to)
	}},
	{"go-fuse loopback", func(t *testing.T, h *harness.Host, from, to string) *exec.Cmd {
		bin := filepath.Join(h.Out, "loopback")
		harness.Run(t, "go", "build", "-o", bin, "github.com/hanwen/go-fuse/v2/example/loopback").OK(t)
		return exec.Command(bin, "-q", "-allow-other", to, from)
	}},
}

// TestPeerDies shows what the tests of this package would see if a view did not survive: peers, killed once.
func TestPeerDies(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			h := harness.New(t)
			h.Blank(t, "vm.img", 64*harness.MiB)
			through := h.Image("through") // a mount below the directory of images, showing its parent
			harness.Run(t, "mkdir", through).OK(t)
			peer := p.start(t, h, h.Images, through)
			if err := peer.Start(); err != nil {
				t.Fatal(err)
			}
			harness.Until(t, p.name+" serves", func() bool { return len(harness.Mounts(t)) == 1 })
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
			t.Logf("%s killed once: %d I/O errors in the guest", p.name, len(lines))
		})
	}
}
