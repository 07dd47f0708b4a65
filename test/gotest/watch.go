// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watch ends the test binaries below a process when nothing has happened for too long.
type watch struct {
	timer *time.Timer
	hang  time.Duration
}

func watchFor(pid int, hang time.Duration) *watch {
	w := &watch{hang: hang}
	w.timer = time.AfterFunc(hang, func() {
		fmt.Printf("gotest: no test has begun or ended for %v: it hangs\n", hang)
		endTests(pid)
		w.timer.Reset(hang)
	})
	return w
}

func (w *watch) alive() { w.timer.Reset(w.hang) }
func (w *watch) stop()  { w.timer.Stop() }

// endTests asks every test binary below pid for its goroutines (SIGQUIT, and the Go runtime exits), the innermost first, for
// a sandbox dies with the one that made it.
func endTests(pid int) {
	below := descendants(pid)
	for i := len(below) - 1; i >= 0; i-- {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", below[i]))
		if !strings.HasSuffix(strings.TrimSuffix(exe, " (deleted)"), ".test") {
			continue
		}
		syscall.Kill(below[i], syscall.SIGQUIT)
		time.Sleep(2 * time.Second) // it writes them
	}
	for _, p := range descendants(pid) {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p)); strings.Contains(exe, ".test") {
			syscall.Kill(p, syscall.SIGKILL)
		}
	}
}

// descendants are the processes below pid, parents before children.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// After the name, which may hold anything: state, parent (proc_pid_stat(5)).
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	var all []int
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		all = append(all, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return all
}
