package torture

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
)

// TestGrowth: nothing accumulates from one worker to the next, neither there nor in the keeper.
func TestGrowth(t *testing.T) {
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
		t.Errorf("descriptors grow")
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
	return usage{fds(t, s.PID), fds(t, s.KeeperPID), rss(t, s.PID), rss(t, s.KeeperPID)}
}

func fds(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
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
