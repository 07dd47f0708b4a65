// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Processes are the daemon's: the one that Start started and its descendants (imgward's keeper starts a worker).
func (m *Mount) Processes() []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, parent, err := parentOf(path)
		if err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{m.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

func parentOf(stat string) (pid, parent int, err error) {
	fields, err := statFields(stat)
	if err != nil {
		return 0, 0, err
	}
	pid, err = strconv.Atoi(filepath.Base(filepath.Dir(stat)))
	if err != nil {
		return 0, 0, err
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err
}

// statFields are those after the process's name, which may hold anything: state, ppid, ... (man 5 proc_pid_stat)
func statFields(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	end := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text)[end+1:])
	if len(fields) < 22 {
		return nil, fmt.Errorf("%s: %q", path, text)
	}
	return fields, nil
}

// OpenFiles are the daemon's descriptors, as what they lead to. Pipes are left out: go-fuse keeps a pool of them.
func (m *Mount) OpenFiles() []string {
	var files []string
	for _, pid := range m.Processes() {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && !strings.HasPrefix(to, "pipe:") {
				files = append(files, to)
			}
		}
	}
	return files
}

// Cost is what a daemon has used so far.
type Cost struct {
	CPU time.Duration // user and system
	RSS int64         // bytes, now
}

// clockTick is USER_HZ, which Linux fixed at 100 for everything that /proc prints.
const clockTick = 10 * time.Millisecond

// PSS is the memory of the daemon's processes in bytes, with what several share divided among them (man 5 proc_pid_smaps).
// RSS counts the program itself once for each.
func (m *Mount) PSS() (sum int64) {
	for _, pid := range m.Processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(text)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
				sum += kib << 10
			}
		}
	}
	return sum
}

// Cost sums over the daemon's processes.
func (m *Mount) Cost() Cost {
	var sum Cost
	for _, pid := range m.Processes() {
		fields, err := statFields(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		sum.CPU += time.Duration(user+system) * clockTick
		sum.RSS += pages * int64(os.Getpagesize())
	}
	return sum
}
