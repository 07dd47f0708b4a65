// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

// count is how many refusals the view has given.
func count(t *testing.T, v *harness.View) int {
	t.Helper()
	if harness.Native() {
		return 0
	}
	return v.Status(t).Refusals
}

// message is what the command prints when it is refused.
func (c command) message() string {
	if c.says != "" {
		return c.says
	}
	return "Device or resource busy"
}

// look is Identify for an image that may be gone: then it takes what is left at its inode.
func (s *scene) look(t *testing.T, image string) harness.Identity {
	t.Helper()
	if _, err := os.Stat(s.h.Beneath(t, image)); err == nil {
		return s.h.Identify(t, image)
	}
	return harness.Identity{}
}

func unchanged(t *testing.T, before, after harness.Identity) {
	t.Helper()
	if before.Dev != after.Dev || before.Ino != after.Ino || !slices.Equal(before.Names, after.Names) {
		t.Errorf("names: %d:%d %v, were %d:%d %v", after.Dev, after.Ino, after.Names, before.Dev, before.Ino, before.Names)
	}
	if before.Size != after.Size || before.Blocks != after.Blocks {
		t.Errorf("size %d, allocated %d; were %d, %d", after.Size, after.Blocks, before.Size, before.Blocks)
	}
	if before.Sum != after.Sum {
		t.Error("the image's bytes have changed")
	}
}

// harmed is the native check: without a view the command does its damage, unless QEMU's own locks stop it.
func harmed(t *testing.T, c command, r harness.Result, before, after harness.Identity) {
	t.Helper()
	same := before.Ino == after.Ino && slices.Equal(before.Names, after.Names) && before.Size == after.Size &&
		before.Blocks == after.Blocks && before.Sum == after.Sum
	switch {
	case c.locked:
		unchanged(t, before, after)
		r.Fails(t, "lock")
	case same:
		t.Errorf("did no harm natively: exit %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// explained checks that the event stream has a refusal with the right operation, domain and target.
func explained(t *testing.T, news []harness.Refusal, c command, target string) {
	t.Helper()
	for _, r := range news {
		asked := !c.virsh || strings.Contains(r.Comm, "libvirtd")
		if asked && slices.Contains(strings.Fields(c.ops), r.Op) && r.Domain == "vm" && r.Target == target {
			return
		}
	}
	t.Errorf("no refusal of %s for %s of vm among the events: %+v", c.ops, target, news)
}

func stillRunning(t *testing.T, h *harness.Host) {
	t.Helper()
	if list := strings.Fields(h.Virsh(t, "list", "--name", "--state-running").OK(t)); len(list) != 2 {
		t.Errorf("running domains: %v, want vm and other", list)
	}
}

// recover puts the scene back in order for the next command, so that one failure is reported once.
func (s *scene) recover(t *testing.T, image, path string, saved *backup, before, after harness.Identity) {
	t.Helper()
	if before.Ino != after.Ino || before.Sum != after.Sum || before.Size != after.Size || before.Blocks != after.Blocks ||
		!slices.Equal(before.Names, after.Names) {
		s.putBack(t, saved, before.Names)
	}
	if path == aliases[1].path(s, image) {
		os.Remove(path)
		if err := os.Symlink(image, path); err != nil {
			t.Fatal(err)
		}
	}
	s.sweep(t)
	if s.h.Virsh(t, "domstate", "other").OK(t) != "running" {
		s.h.Virsh(t, "start", "other").OK(t)
	}
}

// unharmed checks that the guest is alive, reads what it wrote, and saw no I/O error.
func (g *guest) unharmed(t *testing.T) {
	t.Helper()
	if harness.Native() {
		return // it was not meant to survive this
	}
	g.Agent.Healthy(t, "vda", "vdb")
	g.Agent.Fill(t, "vda", 0, blocksPerMiB)
	g.Agent.Do(t, wire.Request{Op: wire.OpSum, Disk: "sr0", Blocks: blocksPerMiB})
	g.Agent.Healthy(t, "vda", "vdb")
	if trouble := g.Virsh(t, "domblkerror").OK(t); !strings.Contains(trouble, "No errors") {
		t.Errorf("domblkerror: %s", trouble)
	}
}
