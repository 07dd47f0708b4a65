// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
)

// imgcp runs the copy command.
func imgcp(t *testing.T, args ...string) harness.Result {
	t.Helper()
	return harness.Run(t, append([]string{harness.Imgcp(), "-v"}, args...)...)
}

// exits fails the test unless a command ended with that code and these words.
func exits(t *testing.T, r harness.Result, code int, words ...string) {
	t.Helper()
	if r.Exit != code {
		t.Errorf("%s: exit code %d, want %d: %s", strings.Join(r.Args, " "), r.Exit, code, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("%s: %q is not in %q", strings.Join(r.Args, " "), w, r.Stderr)
		}
	}
}

// built skips a test natively, where no command of ours is built. Copies beside a view are tested in imgward/copy.
func built(t *testing.T) {
	t.Helper()
	if harness.Native() {
		need.Skip(t, "natively imgcp is not built")
	}
}

// xfsBelow mounts XFS, which has reflinks, in the directory of images, and returns its name there.
func xfsBelow(t *testing.T, h *harness.Host) string {
	t.Helper()
	file, dir := filepath.Join(h.Dir, "disk.xfs"), h.Image("xfs")
	harness.Run(t, "truncate", "-s", "320M", file).OK(t)
	harness.Run(t, "mkfs.xfs", "-q", file).OK(t)
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "mount", "-o", "loop", file, dir).OK(t)
	beneath := h.Beneath(t, dir)
	t.Cleanup(func() {
		if err := unix.Unmount(beneath, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount XFS: %v", err)
		}
	})
	return "xfs"
}

// TestImgcpRefuses: a running domain's disk is neither overwritten nor copied torn.
func TestImgcpRefuses(t *testing.T) {
	built(t)
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm-disk2.img", 64*MiB)
	other := h.Raw(t, "other.img", 8*MiB)
	g := boot(t, h, "rhevm", harness.Disk{Target: "vda", File: disk})
	for _, args := range [][]string{
		{"--overwrite", other, disk}, {"--overwrite=in-place", other, disk}, {disk, h.Image("copy.img")},
		{"dd", "if=" + other, "of=" + disk, "conv=notrunc"}, {"dd", "--overwrite", "if=/dev/zero", "of=" + disk, "bs=1M", "count=4"},
		{"dd", "if=" + disk, "of=" + h.Image("copy.img")}, {"verify", disk, other},
	} {
		r := harness.Run(t, append([]string{harness.Imgcp()}, args...)...)
		exits(t, r, 3, "vda of running domain rhevm")
	}
	exits(t, imgcp(t, other, disk), 3, "vm-disk2.img is in use", "rhevm", "vm-disk3.img") // and no word of --overwrite
	if _, err := os.Stat(h.Image("copy.img")); err == nil {
		t.Error("a refused copy left something behind")
	}
	g.Agent.Healthy(t, "vda")
	g.Finish(t, "vda", disk, "raw")
	exits(t, imgcp(t, "--overwrite", other, disk), 0) // the same, now that the machine is off
}

// TestImgcpLive: a consistent copy of a running domain's disk, while the guest writes, and the guest notices nothing.
func TestImgcpLive(t *testing.T) {
	built(t)
	for _, c := range []struct{ way, format, fs string }{
		{"suspend-reflink", "raw", "xfs"},
		{"backup", "raw", ""},
		{"backup", "qcow2", ""},
	} {
		if c.format != "qcow2" && !need.All() {
			continue
		}
		t.Run(c.way+" "+c.format, func(t *testing.T) {
			h := harness.New(t)
			if c.fs != "" {
				xfsBelow(t, h)
			}
			h.Mount(t)
			name := filepath.Join(c.fs, "vm."+c.format)
			disk := h.Image(name)
			if c.format == "raw" {
				h.Raw(t, name, 64*MiB)
			} else {
				h.Qcow2(t, name, 64*MiB)
			}
			g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: c.format})
			account := g.Agent.Account(t, "vda")
			quiet, busy := disk+".quiet", disk+".busy"
			exits(t, imgcp(t, "--live="+c.way, "--verify", disk, quiet), 0)
			h.CheckImage(t, quiet, c.format, account)
			g.WhileWriting(t, "vda", func() { exits(t, imgcp(t, "--live="+c.way, disk, busy), 0) })
			if state := g.State(t); state != "running" {
				t.Errorf("the domain is %s", state)
			}
			nothingHidden(t, filepath.Dir(disk))
			g.Finish(t, "vda", disk, c.format)
		})
	}
}

// nothingHidden fails if a copy has left a temporary file.
func nothingHidden(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(dir + "/.*imgcp*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestImgcpSuspendNeedsReflinks: without them the domain is left alone, and told is what works.
func TestImgcpSuspendNeedsReflinks(t *testing.T) {
	built(t)
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 256*MiB)
	harness.Run(t, "dd", "if=/dev/urandom", "of="+disk, "bs=1M", "count=256", "conv=notrunc", "status=none").OK(t)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	g.WhileWriting(t, "vda", func() {
		exits(t, imgcp(t, "--live=suspend-reflink", disk, h.Image("copy.img")), 1, "--live=backup")
	})
	nothingHidden(t, h.Images)
	g.Finish(t, "vda", disk, "raw")
}

// TestImgcpKilledWhileSuspended kills imgcp as soon as the domain has been suspended; it goes on all the same.
func TestImgcpKilledWhileSuspended(t *testing.T) {
	need.Long(t)
	built(t)
	h := harness.New(t)
	xfsBelow(t, h)
	h.Mount(t)
	disk := h.Raw(t, "xfs/vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	killedAfter(t, procSuspend, "--live=suspend-reflink", disk, h.Image("xfs/copy.img"))
	g.WaitState(t, "running")
	nothingHidden(t, h.Image("xfs"))
	g.Agent.Healthy(t, "vda")
	g.Finish(t, "vda", disk, "raw")
}

// TestImgcpKilledWhileBackingUp kills imgcp as soon as the backup job has begun: no job and no file of its stay.
func TestImgcpKilledWhileBackingUp(t *testing.T) {
	built(t)
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk})
	killedAfter(t, procBackupBegin, "--live=backup", disk, h.Image("copy.img"))
	harness.Until(t, "the job is gone", func() bool {
		return strings.Contains(h.Virsh(t, "domjobinfo", "vm").OK(t), "None")
	})
	harness.Until(t, "the job's file is gone", func() bool {
		left, _ := filepath.Glob(h.Images + "/.*imgcp*")
		return len(left) == 0
	})
	g.Agent.Healthy(t, "vda")
	exits(t, imgcp(t, "--live=backup", disk, h.Image("copy.img")), 0)
	g.Finish(t, "vda", disk, "raw")
}

// TestImgcpKilledLeavesNothing: a copy through the view that is killed half-way leaves no file under any name.
func TestImgcpKilledLeavesNothing(t *testing.T) {
	built(t)
	h := harness.NewFiles(t)
	h.Mount(t)
	a := h.Raw(t, "a.img", 32*MiB)
	harness.Run(t, "dd", "if=/dev/urandom", "of="+a, "bs=1M", "count=32", "conv=notrunc,fsync", "status=none").OK(t)
	cmd := exec.Command(harness.Imgcp(), "--rate-limit=4M", "--reflink=never", a, h.Image("b.img"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "a part is copied", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", cmd.Process.Pid))
		var read, written int64
		_, scanErr := fmt.Sscanf(string(b), "rchar: %d\nwchar: %d", &read, &written)
		return err == nil && scanErr == nil && written > 2*MiB
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	nothingHidden(t, h.Images)
	if _, err := os.Stat(h.Image("b.img")); err == nil {
		t.Error("half an image under the final name")
	}
}

// TestImgcpSharesThroughTheView: where the backing file system has reflinks, a copy through the view has them too.
func TestImgcpSharesThroughTheView(t *testing.T) {
	built(t)
	h := harness.NewFiles(t)
	xfsBelow(t, h)
	h.Mount(t)
	h.Raw(t, "xfs/a.img", 64*MiB)
	a, b := h.Image("xfs/a.img"), h.Image("xfs/b.img")
	harness.Run(t, "dd", "if=/dev/urandom", "of="+a, "bs=1M", "count=32", "conv=notrunc,fsync", "status=none").OK(t)
	exits(t, imgcp(t, "--explain", "--reflink=always", a, b), 0, "copy_file_range")
	harness.Run(t, "cmp", a, b).OK(t)
	if extents := harness.Run(t, "filefrag", "-v", h.Beneath(t, h.Image("xfs"))+"/b.img"); !strings.Contains(extents.Stdout, "shared") {
		t.Errorf("no block is shared:\n%s%s", extents.Stdout, extents.Stderr)
	}
}
