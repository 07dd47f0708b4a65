// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
	"imgward/test/need"
)

// TestGrowth: nothing accumulates from one worker to the next, neither there nor in the keeper.
func TestGrowth(t *testing.T) {
	need.Long(t)
	h := harness.New(t)
	v := h.Mount(t)
	g := h.Boot(t, "vm", harness.Disk{Target: "vda", File: h.Raw(t, "vm.img", 64*harness.MiB)})
	g.StartWriting(t, "vda")
	lap := func() usage {
		whileKilling(t, v, func() {
			for end := time.Now().Add(*torture / 2); time.Now().Before(end); {
				harness.Sh(t, `for i in $(seq 20); do echo x >"$DIR/f$i"; done; rm "$DIR"/f*`, "DIR="+h.Images).OK(t)
			}
		})
		return use(t, v)
	}
	// What one worker has in memory when it is looked at depends on when its garbage was last collected, and the kernel counts a
	// process's pages in batches. What grows is above the first lap in every lap that follows.
	first := lap()
	for n := 1; ; n++ {
		now := lap()
		t.Logf("after the first lap %+v, after %d more %+v", first, n, now)
		growing := now.growing(first)
		if growing == "" {
			break
		}
		if n == 5 {
			t.Errorf("%s; the keeper has %q", growing, links(v.Status(t).KeeperPID))
			break
		}
	}
	g.StopWriting(t, "vda")
	g.Agent.Healthy(t, "vda")
}

type usage struct{ workerFDs, keeperFDs, workerKiB, keeperKiB int }

// growing says what is more than it was, beyond what may differ from one look to the next.
func (u usage) growing(was usage) string {
	switch {
	case u.workerFDs > was.workerFDs+4 || u.keeperFDs > was.keeperFDs:
		return "descriptors grow"
	case u.keeperKiB > was.keeperKiB+1024 || u.workerKiB > 2*was.workerKiB:
		return "memory grows"
	}
	return ""
}

func use(t *testing.T, v *harness.View) usage {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	s := v.Status(t)
	// A standby costs the keeper three descriptors, and is there only some time after a take-over.
	harness.Until(t, "the keeper has a worker and a standby", func() bool { return children(t, s.KeeperPID) == 2 })
	return usage{fds(t, s.PID), fds(t, s.KeeperPID), memory(t, s.PID), memory(t, s.KeeperPID)}
}

// children counts a process's children, whichever of its threads had them.
func children(t *testing.T, pid int) int {
	t.Helper()
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended, and its children are another's
		}
		n += len(strings.Fields(string(b)))
	}
	return n
}

// links are what a process's descriptors lead to.
func links(pid int) (list []string) {
	paths, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	for _, path := range paths {
		to, _ := os.Readlink(path)
		list = append(list, filepath.Base(path)+" "+to)
	}
	return list
}

// fds counts a process's descriptors: the least of some counts, since what it has for a moment only is no growth.
func fds(t *testing.T, pid int) int {
	t.Helper()
	least := math.MaxInt
	for range 10 {
		list, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, len(list))
		time.Sleep(20 * time.Millisecond)
	}
	return least
}

// memory is what a process has taken for itself, in KiB; pages of its program come and go as the kernel likes.
func memory(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"RssAnon:", "RssShmem:"} {
		_, rest, _ := strings.Cut(string(b), field)
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		kib += n
	}
	return kib
}
