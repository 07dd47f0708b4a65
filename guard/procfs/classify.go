package procfs

import (
	"errors"
	"sync"
	"time"
)

// Kind is what a process is to disk images.
type Kind int

// The kinds of process. Outsider is the zero value: nobody is trusted by omission.
const (
	Outsider Kind = iota
	VMM
	Manager
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

// Classifier tells what a thread's process is, by the executables that count as VMMs and as managers.
type Classifier struct {
	FS       FS
	VMMs     []string // globs of absolute paths
	Managers []string // globs of absolute paths

	mu    sync.Mutex
	known map[int]sighting // by thread id
}

// sighting is what was found out about a thread, with what must still be true for it to hold.
type sighting struct {
	start uint64 // of the thread: a recycled thread id has another
	exe   Exe    // exec(2) keeps pid and start time and changes this
	proc  Process
	seen  time.Time
}

// maxSightings bounds the cache: a shell script that forks without end must not grow it.
const maxSightings = 4096

// maxAncestors bounds the walk to the root of the process tree, which may change while it is walked.
const maxAncestors = 64

// ErrGone means that there is no such process, or none any more.
var ErrGone = errors.New("procfs: no such process")

// Classify resolves a thread id to its process. The error is ErrGone where there is none.
func (c *Classifier) Classify(tid int) (Process, error) {
	stat, err := c.FS.Stat(tid)
	if err != nil || stat.Gone() {
		return Process{}, ErrGone
	}
	exe, err := c.FS.Exe(tid)
	if err != nil { // a kernel thread, or a process that is just ending
		exe = Exe{}
	}
	c.mu.Lock()
	s, ok := c.known[tid]
	c.mu.Unlock()
	if ok && s.start == stat.Start && s.exe == exe {
		return s.proc, nil
	}
	p, err := c.identify(tid, exe)
	if err != nil {
		return Process{}, err
	}
	c.remember(tid, sighting{start: stat.Start, exe: exe, proc: p, seen: time.Now()})
	return p, nil
}

func (c *Classifier) identify(tid int, exe Exe) (Process, error) {
	status, err := c.FS.Status(tid)
	if err != nil {
		return Process{}, ErrGone
	}
	leader, err := c.FS.Stat(status.TGID)
	if err != nil {
		return Process{}, ErrGone
	}
	p := Process{PID: status.TGID, Start: leader.Start, UID: status.UID, Comm: leader.Comm, Exe: exe.Path}
	switch {
	case exe.Matches(c.VMMs):
		p.Kind = VMM
	case exe.Matches(c.Managers), c.hasManagerAbove(status.PPID):
		p.Kind = Manager
	}
	return p, nil
}

// hasManagerAbove looks for a manager among the ancestors: libvirtd forks qemu-img, hooks and helpers, which act for
// it. It does not look above a VMM: what a VMM starts acts for the guest.
func (c *Classifier) hasManagerAbove(pid int) bool {
	for range maxAncestors {
		if pid <= 1 {
			return false
		}
		exe, err := c.FS.Exe(pid)
		if err != nil || exe.Matches(c.VMMs) {
			return false
		}
		if exe.Matches(c.Managers) {
			return true
		}
		stat, err := c.FS.Stat(pid)
		if err != nil {
			return false
		}
		pid = stat.PPID
	}
	return false
}

func (c *Classifier) remember(tid int, s sighting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[int]sighting)
	}
	if len(c.known) >= maxSightings {
		c.forgetOlderHalf()
	}
	c.known[tid] = s
}

// forgetOlderHalf drops what was seen longest ago, by the mean age, which needs no sorting.
func (c *Classifier) forgetOlderHalf() {
	now, total := time.Now(), time.Duration(0)
	for _, s := range c.known {
		total += now.Sub(s.seen)
	}
	mean := total / time.Duration(len(c.known))
	for tid, s := range c.known {
		if now.Sub(s.seen) >= mean {
			delete(c.known, tid)
		}
	}
}
