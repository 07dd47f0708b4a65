// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHangingSuccessor: a successor that neither serves nor ends is followed by the next.
func TestHangingSuccessor(t *testing.T) {
	_, next := run(t, "1", func(k *Keeper) { k.NoStandby, k.Patience = true, 300*time.Millisecond })
	pid, _ := next()
	t.Setenv(roleEnv, "hangs")
	unix.Kill(pid, unix.SIGKILL)
	time.AfterFunc(50*time.Millisecond, func() { os.Setenv(roleEnv, "1") })
	if successor, inherited := next(); inherited != 1 || successor == pid {
		t.Errorf("worker %d after %d has %d descriptors", successor, pid, inherited)
	}
}

// TestStoppedWorker: a worker that is stopped is replaced. One that only gets no CPU, or that a debugger looks at, is not;
// nor one of a program that has no heartbeat.
func TestStoppedWorker(t *testing.T) {
	const grace = 400 * time.Millisecond
	for name, test := range map[string]struct {
		role     string
		replaced bool
	}{
		"stopped":                   {"1", true},
		"starved":                   {"busy", false},
		"stopped, has no heartbeat": {"no pulse", false},
	} {
		t.Run(name, func(t *testing.T) {
			var stopped atomic.Bool
			var beats atomic.Uint64
			_, next := run(t, test.role, func(k *Keeper) {
				k.Grace = grace
				k.Pulse = func(*os.File) uint64 {
					if test.role != "no pulse" && !stopped.Load() {
						return beats.Add(1)
					}
					return beats.Load()
				}
			})
			pid, _ := next()
			stopped.Store(true)
			if test.role != "busy" {
				unix.Kill(pid, unix.SIGSTOP)
			}
			if test.replaced {
				if successor, inherited := next(); successor == pid || inherited != 1 {
					t.Errorf("worker %d after %d has %d descriptors", successor, pid, inherited)
				}
				return
			}
			time.Sleep(3 * grace)
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil {
				t.Errorf("the worker was replaced: %v", err)
			}
			unix.Kill(pid, unix.SIGCONT)
		})
	}
}
