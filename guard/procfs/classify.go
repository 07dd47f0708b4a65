package procfs

import (
	"context"
	"errors"
	"time"
)

// Kind is what a process is to disk images.
type Kind int

// The kinds of process. Outsider is the zero value: nobody is trusted by omission.
const (
	Outsider Kind = iota
	VMM
	Manager
	Trusted
)

// Process is a process at one moment of its life.
type Process struct {
	PID   int // thread group id
	Start uint64
	UID   uint32
	Comm  string
	Exe   string
	Kind  Kind
}

// Classifier tells what a thread's process is, by the executables that count as VMMs and as managers. The fields are
// not changed once it is in use.
type Classifier struct {
	FS       FS
	VMMs     []string // globs of absolute paths, here and below
	Managers []string
	Trusted  []string
	// TrustedCgroups are globs of control groups ("/system.slice/backup.service"); the groups below one belong to it.
	TrustedCgroups []string

	seen   sightings
	walker walker
}

// maxAncestors bounds the walk to the root of the process tree, which may change while it is walked.
const maxAncestors = 64

// ErrGone means that there is no such process, or none any more.
var ErrGone = errors.New("procfs: no such process")

// Recent is Classify for keeping books: who opened a file. For a thread that was looked at less than a second ago the
// answer comes from memory, so a program that the process has executed since is not noticed.
func (c *Classifier) Recent(tid int) (Process, error) {
	if s, ok := c.seen.get(tid); ok && s.recent(time.Now()) {
		return s.proc, nil
	}
	return c.Classify(tid)
}

// Classify resolves a thread id to its process, as it is now. The error is ErrGone where there is none.
//
// A thread that was looked at a moment ago is only asked what it executes now, which is one system call: exec(2) keeps
// pid and start time, and a thread id does not come round again within a second.
func (c *Classifier) Classify(tid int) (Process, error) { return c.classify(tid, 0) }

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

// classify is Classify for an ancestor so far above the caller.
func (c *Classifier) classify(tid, depth int) (Process, error) {
	s, known := c.seen.get(tid)
	now := time.Now()
	if known && s.recent(now) && c.FS.executes(tid, s.exe) {
		return s.proc, nil
	}
	stat, err := c.FS.Stat(tid)
	if err != nil || stat.Gone() {
		return Process{}, ErrGone
	}
	exe, err := c.FS.Exe(tid)
	if err != nil { // a kernel thread, or a process that is just ending
		exe = Exe{}
	}
	if !known || s.start != stat.Start || s.exe != exe {
		p, err := c.identify(tid, depth, stat, exe)
		if err != nil {
			return Process{}, err
		}
		s = sighting{start: stat.Start, exe: exe, proc: p}
	}
	s.at = now
	c.seen.put(tid, s)
	return s.proc, nil
}

func (c *Classifier) identify(tid, depth int, stat Stat, exe Exe) (Process, error) {
	status, err := c.FS.Status(tid)
	if err != nil {
		return Process{}, ErrGone
	}
	leader := stat
	if status.TGID != tid {
		if leader, err = c.FS.Stat(status.TGID); err != nil {
			return Process{}, ErrGone
		}
	}
	p := Process{PID: status.TGID, Start: leader.Start, UID: status.UID, Comm: leader.Comm, Exe: exe.Path}
	switch {
	case c.FS.matches(exe, c.VMMs):
		p.Kind = VMM
	case c.FS.matches(exe, c.Managers), c.managerAbove(status.PPID, depth):
		p.Kind = Manager
	case c.FS.matches(exe, c.Trusted), c.FS.inCgroup(tid, c.TrustedCgroups):
		p.Kind = Trusted
	}
	return p, nil
}

// managerAbove is hasManagerAbove, which must not get stuck with an ancestor that is about to execute a program: what
// cannot be found out makes nobody a manager.
func (c *Classifier) managerAbove(pid, depth int) bool {
	if depth > 0 { // it is being looked at for a descendant
		return c.hasManagerAbove(pid, depth)
	}
	above := false
	_, _ = walk(context.Background(), &c.walker, []int{pid}, func(pid int, found func(bool) bool) {
		found(c.hasManagerAbove(pid, depth))
	}, func(is bool) bool {
		above = is
		return true
	})
	return above
}

// hasManagerAbove looks for a manager among the ancestors: libvirtd forks qemu-img, hooks and helpers, which act for
// it. It does not look above a VMM: what a VMM starts acts for the guest.
//
// The ancestors are remembered as callers are, so for the next command of the same shell one system call is enough.
func (c *Classifier) hasManagerAbove(pid, depth int) bool {
	if pid <= 1 || depth >= maxAncestors {
		return false
	}
	p, err := c.classify(pid, depth+1)
	return err == nil && p.Kind == Manager
}
