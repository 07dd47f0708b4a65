// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"imgward/test/harness"
)

// TestStopped: a worker that is stopped is as good as dead: the view is said to be held up by it, and goes on with the next.
func TestStopped(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.NewFiles(t)
		v := h.Mount(t, opts...)
		v.Expected = []string{"the worker died", "the worker serves nobody", "context canceled"}
		pid, err := workerPID(v.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if r := harness.Run(t, harness.Imgward(), "status", v.Dir); r.Exit != 1 || !strings.Contains(r.Stderr, "is stopped") {
			t.Errorf("status of a view that is held up: exit %d\n%s", r.Exit, r.Stderr)
		}
		if _, err := os.ReadDir(v.Dir); err != nil {
			t.Error(err)
		}
		if now, err := workerPID(v.Dir); err != nil || now == pid {
			t.Errorf("worker %d serves, want another than %d (%v)", now, pid, err)
		}
	})
}
