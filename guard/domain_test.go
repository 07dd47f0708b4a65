// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// A VMM in execve(2) of a program on a dead file system: who reads its stat file waits, as at a FIFO. Its image counts as in
// use, nobody else's question hangs, and when it is gone, it is gone.
func TestProcessThatCannotBeLookedAt(t *testing.T) {
	h := newHost(t)
	stuck, running, dead := h.image("stuck.img"), h.image("running.img"), h.image("dead.img")
	vmm := h.run("vmm")
	proc := filepath.Join(h.dir, "proc")
	const stuckPID, deadPID = 4000001, 4000002
	h.must(os.MkdirAll(filepath.Join(proc, strconv.Itoa(stuckPID)), 0o755))
	h.must(os.Symlink(filepath.Join("/proc", strconv.Itoa(vmm.PID)), filepath.Join(proc, strconv.Itoa(vmm.PID))))
	fifo := filepath.Join(proc, strconv.Itoa(stuckPID), "stat")
	h.must(unix.Mkfifo(fifo, 0o600))
	h.domain("stuck", stuckPID, stuck)
	h.domain("running", vmm.PID, running)
	h.domain("dead", deadPID, dead)
	s := newDomains(HostDirect{}, procfs.FS{Root: proc}, libvirt.New(libvirt.Config{Dirs: h.config.StatusDirs}), func(int) bool { return false })
	used := func(path string) bool {
		answer := make(chan []Use, 1)
		go func() {
			uses, err := s.uses(background, &asked{id: h.id(path)})
			if err != nil {
				t.Error(err)
			}
			answer <- uses
		}()
		select {
		case uses := <-answer:
			return len(uses) > 0
		case <-time.After(time.Minute):
			t.Fatal("the question hangs with the process")
			return false
		}
	}
	for path, want := range map[string]bool{stuck: true, running: true, dead: false} {
		if got := used(path); got != want {
			t.Errorf("%s in use: %v", filepath.Base(path), got)
		}
	}
	// Whoever waits is let go before the next look.
	w, err := os.OpenFile(fifo, os.O_RDWR, 0)
	h.must(err)
	h.must(os.RemoveAll(filepath.Dir(fifo)))
	h.must(w.Close())
	for deadline := time.Now().Add(time.Minute); used(stuck); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that is gone counts")
		}
	}
}
