// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"syscall"
	"testing"
	"time"
)

// TestMountAfterUmount: a daemon that has not quite ended holds nobody up for long.
func TestMountAfterUmount(t *testing.T) {
	v := newView(t, allAlways)
	args := []string{"mount", "--log", v.log, "-o", "policy=" + v.policy, v.dir}
	v.run(t, args...)
	first := v.describe(t)
	if err := syscall.Kill(first.KeeperPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(v.dir, 0); err != nil {
		t.Fatal(err)
	}
	resumed := time.AfterFunc(time.Second, func() { syscall.Kill(first.KeeperPID, syscall.SIGCONT) })
	defer resumed.Stop()
	v.run(t, args...)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })
	if second := v.describe(t); second.KeeperPID == first.KeeperPID {
		t.Error("the daemon from before answers")
	}
	v.killWorker(t) // its runtime directory has stayed
}
