// SPDX-License-Identifier: Apache-2.0

// Package torture kills the daemon's worker with SIGKILL, again and again, and looks for anybody who noticed: a guest
// with an I/O error, a lost write, a command with another result, a destroyer that got through.
//
// Short by default, as part of `make test`; `make torture` runs it for ten minutes.
package torture

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"imgward/test/harness"
	"imgward/test/need"
)

var torture = flag.Duration("torture.for", 6*time.Second, "how long each torture lasts")

func TestMain(m *testing.M) {
	flag.Parse()
	if harness.Native() {
		fmt.Println("torture: natively there is no daemon to kill")
		return
	}
	os.Exit(harness.Main(m))
}

// both runs a test with kernel passthrough and, under make test-all, without.
func both(t *testing.T, run func(t *testing.T, opts ...string)) {
	t.Run("passthrough", func(t *testing.T) { run(t) })
	if need.All() {
		t.Run("nopassthrough", func(t *testing.T) { run(t, "-o", "nopassthrough") })
	}
}

// whileKilling runs f while workers of the view are killed at random moments. If f ends early, so do the kills.
func whileKilling(t *testing.T, v *harness.View, f func()) {
	t.Helper()
	v.Expected = []string{"the worker died"}
	before := v.Status(t).Takeovers
	stop, done := make(chan struct{}), make(chan error, 1)
	kills := 0
	go func() { done <- killUntil(v.Dir, stop, &kills) }()
	func() {
		defer func() { // also when f ends the test
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		f()
	}()
	if kills == 0 {
		t.Error("nothing was killed")
	}
	// The question waits for the last one's successor. A worker may have been killed before it had noted its take-over,
	// so the two numbers need not be the same.
	takeovers := v.Status(t).Takeovers - before
	t.Logf("%d kills, %d take-overs", kills, takeovers)
	if takeovers < kills/2 {
		t.Errorf("%d kills, but only %d take-overs", kills, takeovers)
	}
}

// killUntil kills one worker after the other, each some time after it began to serve.
func killUntil(dir string, stop <-chan struct{}, kills *int) error {
	last := 0
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(time.Duration(rand.Int64N(int64(400 * time.Millisecond)))):
		}
		pid, err := workerPID(dir)
		if err != nil {
			return err
		}
		if pid == last {
			return fmt.Errorf("killed worker %d, and it still answers", pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill worker %d: %w", pid, err)
		}
		last = pid
		*kills++
	}
}

var pidField = regexp.MustCompile(`"pid":(\d+)`)

// workerPID asks the view; the question waits while no worker serves.
func workerPID(dir string) (int, error) {
	cmd := exec.Command(harness.Imgward(), "status", "--json", dir)
	out, err := cmd.CombinedOutput()
	m := pidField.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("imgward status: %w\n%s", err, out)
	}
	return strconv.Atoi(string(m[1]))
}
