// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// execPeriod is how long programs are executed; without the fix a view stood still within a second.
const execPeriod = 3 * time.Second

// TestExecWhileJudged: programs are executed by a process that has a file open, while others truncate that file. exec(2)
// closes the descriptor with the process's exec_update_lock held, and looking at the process in /proc waits for that
// lock; a daemon that judges the truncation by who has the file open, and answers the close(2) only after that, waits
// for itself.
func TestExecWhileJudged(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		image := filepath.Join(freshDir(t, p), "image")
		fd := openLocks(t, image)
		defer unix.Close(fd)
		lockByte(t, fd, 0)
		end := time.Now().Add(execPeriod)
		var wg sync.WaitGroup
		repeat := func(do func() error) {
			wg.Go(func() {
				for time.Now().Before(end) {
					if err := do(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 3 {
			repeat(func() error { return exec.Command("/bin/true").Run() })
		}
		// Another process: what this one does to a file that it has open was judged when it opened it.
		truncate := `end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do : > "$0" || exit 1; done`
		if out, err := exec.Command("/bin/sh", "-c", truncate, image).CombinedOutput(); err != nil {
			t.Errorf("truncate: %v\n%s", err, out)
		}
		wg.Wait()
	})
}
