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
	first, second := lap(), lap()
	t.Logf("after the first half %+v, after the second %+v", first, second)
	if second.workerFDs > first.workerFDs+4 || second.keeperFDs > first.keeperFDs {
		t.Errorf("descriptors grow; the keeper has %q", links(v.Status(t).KeeperPID))
	}
	if second.keeperKiB > first.keeperKiB+1024 || second.workerKiB > 2*first.workerKiB {
		t.Errorf("memory grows")
	}
	g.StopWriting(t, "vda")
	g.Agent.Healthy(t, "vda")
}

type usage struct{ workerFDs, keeperFDs, workerKiB, keeperKiB int }

func use(t *testing.T, v *harness.View) usage {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	s := v.Status(t)
	// A standby costs the keeper three descriptors, and is there only some time after a take-over.
	harness.Until(t, "the keeper has a worker and a standby", func() bool { return children(t, s.KeeperPID) == 2 })
	return usage{fds(t, s.PID), fds(t, s.KeeperPID), rss(t, s.PID), rss(t, s.KeeperPID)}
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

func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
