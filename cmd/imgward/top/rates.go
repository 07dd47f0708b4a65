// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"os"
	"time"
)

// Rates measures what processes read and write. With passthrough the daemon does not see it; the kernel counts it for
// each process, over all its disks.
type Rates struct {
	before map[int]sample
}

type sample struct {
	at          time.Time
	read, write uint64 // bytes that went to or came from a block layer
	rate        [2]float64
}

// Of is a process's bytes a second since the last time; negative: not known (yet).
func (r *Rates) Of(pid int, now time.Time) (read, write float64) {
	if r.before == nil {
		r.before = map[int]sample{}
	}
	s := sample{at: now, rate: [2]float64{-1, -1}}
	if !counters(pid, &s) {
		delete(r.before, pid)
		return -1, -1
	}
	b, ok := r.before[pid]
	switch passed := now.Sub(b.at).Seconds(); {
	case ok && passed <= 0: // asked twice for one screen
		return b.rate[0], b.rate[1]
	case ok && s.read >= b.read && s.write >= b.write: // else it is another process
		s.rate = [2]float64{float64(s.read-b.read) / passed, float64(s.write-b.write) / passed}
	}
	r.before[pid] = s
	return s.rate[0], s.rate[1]
}

// counters reads /proc/PID/io (proc_pid_io(5)).
func counters(pid int, s *sample) bool {
	f, err := os.Open(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return false
	}
	defer f.Close()
	found := 0
	for {
		var name string
		var n uint64
		if _, err := fmt.Fscanf(f, "%s %d\n", &name, &n); err != nil {
			return found == 2
		}
		switch name {
		case "read_bytes:":
			s.read = n
			found++
		case "write_bytes:":
			s.write = n
			found++
		}
	}
}
