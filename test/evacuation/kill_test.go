// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/test/harness"
	"imgward/test/need"
)

// points is how many times a test kills imgcp.
func points() int {
	if need.All() {
		return 20
	}
	return 2
}

// testKilled kills imgcp at random moments while the guest writes, every second time with its guardian: the domain is back on
// its own images, with every write that was acknowledged, by the guardian or by --repair; and --resume makes the copy whole.
func testKilled(t *testing.T, s *scene) {
	for _, way := range []archive.Method{archive.Freeze, archive.Backup, archive.Mirror} {
		if way != archive.Freeze && !need.All() {
			continue
		}
		s.dest = filepath.Join(s.Out, "killed-"+string(way))
		t.Run(string(way), func(t *testing.T) { s.killed(t, "--live="+string(way)) })
	}
}

func (s *scene) killed(t *testing.T, way string) {
	begun := time.Now()
	mirror := way == "--live=mirror"
	if mirror {
		s.kill(t, s.mirrored(t, slow(way, "vm", filepath.Join(s.Out, "measure"+way))...), false)
		harness.Until(t, "the guardian is done", func() bool { return !s.toUndo(t) })
	} else {
		s.imgcp(t, slow(way, "vm", filepath.Join(s.Out, "measure"+way))...).OK(t)
	}
	whole := time.Since(begun)
	writes := 0
	for i := range points() {
		at := time.Duration(rand.Int64N(int64(whole)))
		both := i%2 == 1
		t.Logf("kill at %v of %v, guardian too: %v", at.Round(time.Millisecond), whole.Round(time.Millisecond), both)
		cmd := s.start(t, slow("--resume", way, "vm", s.dest)...)
		first := writes
		for end := time.Now().Add(at); time.Now().Before(end); time.Sleep(at / 8) {
			s.write(t, writes)
			writes++
		}
		s.kill(t, cmd, both)
		if !both {
			harness.Until(t, "the guardian is done", func() bool { return !s.toUndo(t) })
		}
		s.imgcp(t, "--repair", "vm").OK(t)
		s.atHome(t)
		if state := s.vm.State(t); state != "running" {
			t.Fatalf("the domain is %s", state)
		}
		for n := first; n < writes; n++ {
			s.guest(t, "vda", fmt.Sprintf("read -P %d %dk 64k", n%250+1, 4096+64*(n%256)))
		}
		if t.Failed() {
			return
		}
	}
	if mirror {
		cmd := s.mirrored(t, "--resume", way, "vm", s.dest)
		s.write(t, writes)
		s.vm.Virsh(t, "destroy").OK(t)
		s.ends(t, cmd)
		s.same(t, s.whole(t, "vm"), "vda")
		return
	}
	s.imgcp(t, "--resume", way, "vm", s.dest).OK(t)
	s.whole(t, "vm") // of the moment when it was taken: a run may have ended before it could be killed
	s.dest = filepath.Join(s.Out, "after"+way)
	s.guest(t, "vda", "flush")
	s.imgcp(t, way, "vm", s.dest).OK(t)
	s.same(t, s.whole(t, "vm"), "vda")
	if left, _ := filepath.Glob("/var/lib/libvirt/qemu/imgcp-*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// slow has a copy take a second or two.
func slow(args ...string) []string { return append([]string{"--rate-limit=16M"}, args...) }

// mirrored starts imgcp and waits until its mirrors are complete.
func (s *scene) mirrored(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := s.start(t, args...)
	harness.Until(t, "the mirrors are complete", func() bool {
		if strings.Contains(s.log(t), "the mirrors are complete") {
			return true
		}
		var st syscall.WaitStatus
		if pid, _ := syscall.Wait4(cmd.Process.Pid, &st, syscall.WNOHANG, nil); pid != 0 {
			t.Fatalf("imgcp has ended:\n%s", s.log(t))
		}
		return false
	})
	return cmd
}

// log is what imgcp has said so far.
func (s *scene) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, "imgcp.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ends waits for the end of imgcp, which must have done what it was asked.
func (s *scene) ends(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, s.log(t))
	}
}

// write is the guest's write number n.
func (s *scene) write(t *testing.T, n int) {
	t.Helper()
	s.guest(t, "vda", fmt.Sprintf("write -P %d %dk 64k", n%250+1, 4096+64*(n%256)))
}

// start starts imgcp domain.
func (s *scene) start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Imgcp(), append([]string{"domain", "-v"}, args...)...)
	log, err := os.Create(filepath.Join(s.Dir, "imgcp.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// kill kills imgcp, and before it its guardian if that is to die as well.
func (s *scene) kill(t *testing.T, cmd *exec.Cmd, guardian bool) {
	t.Helper()
	if guardian {
		for _, pid := range children(cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
}

// children are the processes that a process has started.
func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// toUndo says whether something is still to be undone to the domain.
func (s *scene) toUndo(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat("/var/lib/imgcp/domains/" + s.vm.Virsh(t, "domuuid").OK(t) + ".json")
	return err == nil
}

// frozen waits until the guest's writes go to an overlay, and returns imgcp under way.
func (s *scene) frozen(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := s.start(t, "--rate-limit=1M", "vm", s.dest)
	harness.Until(t, "the disks stand still", func() bool { return strings.Contains(s.sources(t)["vda"], ".imgcp-") })
	return cmd
}

// TestDestroyedWhileFrozen: the domain stops with its disks on overlays, imgcp and its guardian are gone. --repair merges the
// guest's writes into the images, and the definition names them again.
func TestDestroyedWhileFrozen(t *testing.T) {
	s := newScene(t)
	s.vm.Start(t)
	cmd := s.frozen(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.kill(t, cmd, true)
	s.vm.Virsh(t, "destroy").OK(t)
	if now := s.sources(t)["vda"]; !strings.Contains(now, ".imgcp-") {
		t.Fatalf("vda is %s: the case is another one", now)
	}
	s.imgcp(t, "--repair", "vm").OK(t)
	s.atHome(t)
	harness.Run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 5M 1M", s.images["vda"]).OK(t)
	s.vm.Start(t)
	s.atHome(t)
	s.guest(t, "vda", "read -P 9 5M 1M")
}

// TestTransientEndsWhileFrozen: nothing is left of the domain but the overlays and what was written down.
func TestTransientEndsWhileFrozen(t *testing.T) {
	s := newScene(t)
	s.vm.Virsh(t, "undefine").OK(t)
	s.Virsh(t, "create", filepath.Join(s.Dir, "vm.xml")).OK(t)
	cmd := s.frozen(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.kill(t, cmd, true)
	s.vm.Virsh(t, "destroy").OK(t)
	s.imgcp(t, "--repair", "vm").OK(t)
	s.vm.Virsh(t, "domuuid").Fails(t, "vm")
	if left, _ := filepath.Glob(s.Image("*.imgcp-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	harness.Run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 5M 1M", s.images["vda"]).OK(t)
}

// testLibvirtdRestarts while the disks stand still: the copy goes on, and the domain comes back to its images.
func testLibvirtdRestarts(t *testing.T, s *scene) {
	cmd := s.start(t, slow("vm", s.dest)...)
	harness.Until(t, "the disks stand still", func() bool { return strings.Contains(s.sources(t)["vda"], ".imgcp-") })
	s.Libvirtd().Stop(t)
	s.StartLibvirtd(t)
	s.ends(t, cmd)
	s.atHome(t)
	s.same(t, s.whole(t, "vm"), "vda")
}

// testBlockJob: a domain at whose disk somebody else is at work is left alone.
func testBlockJob(t *testing.T, s *scene) {
	s.vm.Virsh(t, "blockcopy", "vdb", s.Image("mirror.img"), "--transient-job", "--format", "raw").OK(t)
	s.imgcp(t, "vm", s.dest).Fails(t, "virsh blockjob vm vdb")
	s.vm.Virsh(t, "blockjob", "vdb", "--abort").OK(t)
	s.atHome(t)
	s.imgcp(t, "--resume", "vm", s.dest).OK(t)
	s.whole(t, "vm")
}

// testKilledInSnapshot: libvirt finishes the snapshot of a run that was killed while it waited for it. Who repairs waits for
// that, and does not take the domain for one that was never touched.
func testKilledInSnapshot(t *testing.T, s *scene) {
	cmd := s.start(t, "vm", s.dest)
	harness.Until(t, "libvirt makes the overlays", func() bool {
		made, _ := filepath.Glob(s.Image("*.imgcp-*"))
		return len(made) > 0
	})
	s.kill(t, cmd, true)
	s.imgcp(t, "--repair", "vm").OK(t)
	s.atHome(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.guest(t, "vda", "read -P 9 5M 1M")
}

// testKilledAtOnce: imgcp is killed as soon as it has written down what it will do. Its guardian was there before.
func testKilledAtOnce(t *testing.T, s *scene) {
	intent := "/var/lib/imgcp/domains/" + s.vm.Virsh(t, "domuuid").OK(t) + ".json"
	cmd := s.start(t, "vm", s.dest)
	harness.Until(t, "it is written down", func() bool {
		for end := time.Now().Add(time.Second); time.Now().Before(end); { // no pause: the guardian takes milliseconds to start
			if _, err := os.Stat(intent); err == nil {
				s.kill(t, cmd, false)
				return true
			}
		}
		return false
	})
	harness.Until(t, "the guardian is done", func() bool { return !s.toUndo(t) })
	s.atHome(t)
}

// testMergedTwice: an overlay that somebody else has just merged is not merged again: that would take the user's own image.
func testMergedTwice(t *testing.T, s *scene) {
	conn := libvirtd.New("")
	defer conn.Close()
	d, err := conn.Domain(t.Context(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CommitActive(t.Context(), d, "vda", s.Image("top.qcow2.imgcp-1234.qcow2")); err == nil {
		t.Error("libvirt merges something")
	}
	s.atHome(t)
}
