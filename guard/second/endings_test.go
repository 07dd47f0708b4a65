// SPDX-License-Identifier: Apache-2.0

package second

import (
	"os/exec"
	"testing"
	"time"

	"imgward/guard"
)

// TestEndings: the end of a process that uses a block device is told of, and that of another is not.
func TestEndings(t *testing.T) {
	ended := make(chan struct{}, 2)
	e := endings{ended: func() { ended <- struct{}{} }}
	device, file := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	for _, c := range []*exec.Cmd{device, file} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	e.follow(map[guard.ID][]guard.Use{
		{Dev: guard.BlockDevice, Ino: 7}: {{PID: device.Process.Pid}},
		{Dev: 1, Ino: 2}:                 {{PID: file.Process.Pid}},
	})
	for _, c := range []*exec.Cmd{file, device} {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	e.follow(nil)
	if len(ended) > 0 || len(e.watched) > 0 {
		t.Errorf("told %d times more; %d still watched", len(ended), len(e.watched))
	}
}
