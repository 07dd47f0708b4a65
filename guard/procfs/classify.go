// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"time"
)

// Classifier tells what a thread's process is: what it is privileged to by its executable's inode (see privilege.go), and
// whether it plausibly is a VMM (see vmm.go). The fields are not changed once it is in use.
type Classifier struct {
	FS       FS
	VMMs     []string // globs of absolute paths, here and below
	Managers []string
	Trusted  []string
	Aligned  []string // which gives no privilege
	// VMMNames are globs of the names that VMMs' executables have, wherever they lie.
	VMMNames []string
	// VMMCgroups and TrustedCgroups are globs of control groups ("/system.slice/backup.service"); the groups below one
	// belong to it.
	VMMCgroups     []string
	TrustedCgroups []string

	seen   observations
	vmms   marks
	walker walker
}

// Recent is Classify for keeping books: who opened a file. For a thread that was looked at less than a second ago the
// answer comes from memory, so a program that the process has executed since is not noticed.
func (c *Classifier) Recent(tid int) (Process, error) {
	if o, ok := c.seen.get(tid); ok && o.recent(time.Now()) && o.complete {
		return c.withMark(o.proc), nil
	}
	return c.Classify(tid)
}

// Other is Classify for a process that is not the one that asks and waits for the answer: it may be about to execute
// another program, and then cannot be looked at. ErrGone is the answer for that, too.
func (c *Classifier) Other(tid int) (Process, error) {
	p, err := Process{}, ErrGone
	_, _ = walk(context.Background(), &c.walker, []int{tid}, func(tid int, found func(Process) bool) {
		if other, err := c.Classify(tid); err == nil {
			found(other)
		}
	}, func(other Process) bool {
		p, err = other, nil
		return true
	})
	return p, err
}

// Classify resolves a thread id to its process, as it is now. The error is ErrGone where there is none.
//
// A thread that was looked at a moment ago is only asked what it executes now, which is one system call: exec(2) keeps
// pid and start time, and a thread id does not come round again within a second.
func (c *Classifier) Classify(tid int) (Process, error) {
	o, err := c.observe(tid)
	if err != nil {
		return Process{}, err
	}
	if !o.complete {
		if c.managerAbove(o.parent) {
			o.proc.Kind = Manager
		}
		o.complete = true
		c.seen.put(tid, o)
	}
	return c.withMark(o.proc), nil
}

// withMark is a process as other evidence has shown it to be.
func (c *Classifier) withMark(p Process) Process {
	if p.Kind != VMM && p.Kind != Trusted && c.vmms.has(&p) {
		p.Kind = VMM
	}
	return p
}

// observe is what a thread's process is by itself, without its ancestors.
func (c *Classifier) observe(tid int) (observation, error) {
	o, known := c.seen.get(tid)
	now := time.Now()
	if known && o.recent(now) && c.FS.executes(tid, o.exe) {
		return o, nil
	}
	stat, err := c.FS.Stat(tid)
	if err != nil || stat.Gone() {
		return observation{}, ErrGone
	}
	exe, err := c.FS.Exe(tid)
	if err != nil { // a kernel thread, or a process that is just ending
		exe = Exe{}
	}
	if !known || o.start != stat.Start || o.exe != exe {
		if o, err = c.identify(tid, stat, exe); err != nil {
			return observation{}, err
		}
	}
	o.at = now
	c.seen.put(tid, o)
	return o, nil
}

func (c *Classifier) identify(tid int, stat Stat, exe Exe) (observation, error) {
	status, err := c.FS.Status(tid)
	if err != nil {
		return observation{}, ErrGone
	}
	leader := stat
	if status.TGID != tid {
		if leader, err = c.FS.Stat(status.TGID); err != nil {
			return observation{}, ErrGone
		}
	}
	p := Process{PID: status.TGID, Start: leader.Start, UID: status.UID, Comm: leader.Comm, Exe: exe.Path}
	p.Kind, p.Listed = c.privilege(tid, exe)
	p.Aligned = c.FS.matches(exe, c.Aligned)
	if p.Kind == Outsider && c.namedVMM(tid, exe.Path) {
		p.Kind = VMM
	}
	return observation{start: stat.Start, exe: exe, proc: p, parent: status.PPID, complete: p.Kind != Outsider}, nil
}
