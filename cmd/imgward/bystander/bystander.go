// SPDX-License-Identifier: Apache-2.0

// Package bystander finds the processes that go beside a view in place: those that stood in the directory before the view
// was mounted over it. A relative path of theirs leads to the file below, and no mount can change that.
package bystander

import (
	"context"
	"fmt"
	"os"
	"time"

	"imgward/cmd/imgward/terminal"
	"imgward/guard"
	"imgward/guard/procfs"
	tty "imgward/guard/terminal"
)

// Process is one of them.
type Process struct {
	procfs.Below
	Terminal string // path of its controlling terminal; empty: none
}

// proc is where processes are looked at.
var proc = procfs.FS{Root: "/proc"}

// maxLook bounds a look at all processes.
const maxLook = 10 * time.Second

// Of lists the processes whose working directory, root or open directories lie in the directory that a view covers, but for
// this one and imgward's daemons.
func Of(ctx context.Context, covered guard.ID) []Process {
	ctx, cancel := context.WithTimeout(ctx, maxLook)
	defer cancel()
	var list []Process
	// What was found until then counts if time runs out.
	_ = proc.ProcessesBelow(ctx, covered.Dev, covered.Ino, guard.ServesView, func(b procfs.Below) {
		if b.PID != os.Getpid() {
			list = append(list, Process{b, tty.Name(proc, b.PID)})
		}
	})
	return list
}

// Works says whether paths that the process uses begin there; else it has a directory open.
func (p *Process) Works() bool { return p.How != "fd" }

func (p *Process) String() string {
	where := map[string]string{"cwd": "its working directory is", "root": "its root is", "fd": "it has open"}[p.How]
	on := ""
	if p.Terminal != "" {
		on = " on " + p.Terminal
	}
	return fmt.Sprintf("%s (pid %d)%s: %s %s", terminal.Safe(p.Comm), p.PID, on, where, terminal.Safe(p.Path))
}

// Tell writes a line to the terminal of each of them that has one, once to each, but not to this process's own.
func Tell(list []Process, line string) {
	told := map[uint64]bool{0: true}
	if own, err := proc.Stat(os.Getpid()); err == nil {
		told[own.TTY] = true
	}
	for _, p := range list {
		if !told[p.TTY] && p.Works() {
			told[p.TTY] = true
			_ = tty.Tell(proc, p.PID, func() string { return line }) // who cannot be told is in the list
		}
	}
}
