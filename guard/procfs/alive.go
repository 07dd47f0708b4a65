// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Alive says whether the process with this pid and start time still runs. What cannot be found out counts as yes.
func (f FS) Alive(pid int, start uint64) bool {
	stat, err := f.Stat(pid)
	if err != nil {
		return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH)
	}
	return !stat.Gone() && stat.Start == start
}

// ticks is USER_HZ, the unit of start times in /proc: 100 a second on every architecture that runs Go.
const ticks = 100

// StartedAt turns a start time of /proc into wall-clock time, as the clock is set now.
func StartedAt(start uint64) time.Time {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}
	}
	sinceBoot := time.Duration(boot.Nano())
	return time.Now().Add(-sinceBoot).Add(time.Duration(start) * (time.Second / ticks))
}
