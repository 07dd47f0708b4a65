// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const floodImages = 6000 // more than are remembered for explanations

var floodFor = flag.Duration("policy.flood", 4*time.Second, "how long the flood of refusals lasts at least")

// A flood of refusals, each of another image, costs the log some lines and the daemon some memory, and no end of them.
func TestFlood(t *testing.T) {
	v := mount(t, allAlways)
	images := make([]string, floodImages)
	for i := range images {
		images[i] = v.image(t, fmt.Sprintf("%d.img", i))
	}
	pid := v.describe(t).PID
	before, refused := resident(t, pid), atomic.Int64{}
	began := time.Now()
	flooding := func() bool { return time.Since(began) < *floodFor || refused.Load() < floodImages }
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := worker; flooding(); i += 4 {
				if err := syscall.Truncate(images[i%floodImages], 0); !errors.Is(err, syscall.EBUSY) {
					t.Errorf("truncate: %v", err)
					return
				}
				refused.Add(1)
			}
		})
	}
	all.Wait()
	lasted := time.Since(began)
	t.Logf("%d refusals in %v", refused.Load(), lasted)
	if grown := resident(t, pid) - before; grown > 48<<20 {
		t.Errorf("the daemon has grown by %d MiB", grown>>20)
	}
	// 100 at once and 20 a second are logged, and how many were not (guard/refused.go).
	log, err := os.ReadFile(v.log)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(log, []byte(`msg="imgward: refused: `)); lines == 0 || lines > 100+20*10*int(lasted/time.Second+1) {
		t.Errorf("%d lines in the log", lines)
	}
	if !bytes.Contains(log, []byte("refusals were not logged")) {
		t.Error("the log does not say that more were refused")
	}
	if n := strings.Count(v.run(t, "events", v.dir), "\n"); n > 1024 {
		t.Errorf("%d events are remembered", n)
	}
	if status := v.run(t, "status", "--json", v.dir); !strings.Contains(status, fmt.Sprintf(`"refusals":%d,`, refused.Load())) {
		t.Errorf("%d were refused, and status says otherwise:\n%s", refused.Load(), status[:min(len(status), 600)])
	}
}

// resident is a process's memory, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
