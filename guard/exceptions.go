// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
	"imgward/guard/terminal"
)

// exceptions are those that hold. There are few: they are made by hand.
type exceptions struct {
	mu   sync.Mutex // held while save runs: what is saved is never older than what holds
	list []Exception
	last uint64
	save func([]Exception) error
	// changed is told of what happens to an exception, with mu held.
	changed func(t EventType, change string, e *Exception)
	failed  func(error)
	// alive says whether a process still runs.
	alive func(pid int, start uint64) bool
}

// maxExceptions bounds them: a script that asks for one in a loop is a mistake.
const maxExceptions = 1000

// Allow grants an exception, for as long as its Expires says, and returns it with its ID. by is the process that asks
// (0: none that can be looked at): its login uid and terminal are noted. Only root may be let here.
func (g *Guard) Allow(e Exception, by int) (Exception, error) {
	now := time.Now()
	if err := e.validate(now); err != nil {
		return Exception{}, err
	}
	e.Granted = now
	if by != 0 {
		proc := g.inForce.Load().procs.FS
		e.TTY = terminal.Name(proc, by)
		if uid, ok := proc.LoginUID(by); ok {
			e.LoginUID = &uid
		}
	}
	return g.exceptions.add(e, now)
}

// Revoke ends an exception before its time. False: there is none with this ID.
func (g *Guard) Revoke(id uint64) bool { return g.exceptions.revoke(id) }

// Exceptions lists those that hold, oldest first.
func (g *Guard) Exceptions() []Exception { return g.exceptions.current(time.Now()) }

// excepted finds an exception for the request; nil if there is none.
func (q *question) excepted() *Exception {
	for _, e := range q.g.exceptions.current(time.Now()) {
		if e.covers(q.Image, q.Op, q.caller.UID, time.Now()) && q.ofCommand(e.Command) && q.sameLogin(&e) && q.sameFile(&e) {
			return &e
		}
	}
	return nil
}

// spend is what uses an exception for the request. The writes of a handle have none: opening it was the use, unless
// another process writes than the one that opened.
func (q *question) spend(e *Exception) func() bool {
	if q.Op == OpWrite && (!e.Once || e.Command != nil) {
		return nil
	}
	op, caller := q.Op, q.caller
	return func() bool { return q.g.exceptions.spend(e, op, &caller) }
}

// ancestors bounds the way up from a process; a shell's children are a few steps below it.
const ancestors = 64

// ofCommand says whether the caller is a command that has used an exception up, or below it.
func (q *question) ofCommand(c *Command) bool {
	pid := q.caller.PID
	for range ancestors {
		if c == nil {
			return true
		}
		stat, err := q.procs.FS.Stat(pid)
		if err != nil {
			return false
		}
		if stat.ID == c.PID && stat.Start == c.Start {
			return true
		}
		if pid = stat.PPID; pid <= 0 {
			return false
		}
	}
	return false
}

func (q *question) sameLogin(e *Exception) bool {
	if e.LoginUID == nil {
		return true
	}
	uid, ok := q.procs.FS.LoginUID(q.caller.PID)
	return ok && uid == *e.LoginUID
}

// sameFile says whether the image is the file that the exception was made for, and not a later one with its inode number.
func (q *question) sameFile(e *Exception) bool {
	if e.Birth == (Birth{}) {
		return true
	}
	if q.Open == nil {
		return false
	}
	fd, err := procfs.OpenRetry(q.Open)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return BirthOf(fd).is(e.Birth)
}

// restore takes over a predecessor's exceptions.
func (x *exceptions) restore(list []Exception) {
	x.list = slices.Clone(list)
	for _, e := range list {
		x.last = max(x.last, e.ID)
	}
}

func (x *exceptions) add(e Exception, now time.Time) (Exception, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expire(now)
	if len(x.list) >= maxExceptions {
		return Exception{}, fmt.Errorf("there are %d exceptions already", len(x.list))
	}
	x.last++
	e.ID = x.last
	x.list = append(x.list, e)
	if err := x.stored(); err != nil {
		x.list = x.list[:len(x.list)-1]
		return Exception{}, fmt.Errorf("the exception cannot be stored: %w", err)
	}
	x.changed(EventException, "", &e)
	return e, nil
}

func (x *exceptions) revoke(id uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.find(id)
	if i < 0 {
		return false
	}
	x.drop(i, "revoked")
	x.store()
	return true
}

// spend uses an exception for an operation of one process. One for a single command is that process's from then on.
func (x *exceptions) spend(seen *Exception, op Op, by *Process) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expire(time.Now())
	i := x.find(seen.ID)
	if i < 0 {
		return false
	}
	e := &x.list[i]
	if e.Once && seen.Command == nil && e.Command != nil && (e.Command.PID != by.PID || e.Command.Start != by.Start) {
		return false // another was faster
	}
	bind := e.Once && e.Command == nil
	if bind {
		e.Command = &Command{PID: by.PID, Start: by.Start, Comm: by.Comm}
	}
	used := *e
	x.changed(EventExceptionUsed, fmt.Sprintf("%s by %s (pid %d)", op, by.Comm, by.PID), &used)
	if bind {
		x.store()
	}
	return true
}

func (x *exceptions) current(now time.Time) []Exception {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expire(now)
	return slices.Clone(x.list)
}

// expire drops what has run out, and what was for a command that has ended.
func (x *exceptions) expire(now time.Time) {
	dropped := false
	for i := len(x.list) - 1; i >= 0; i-- {
		switch c := x.list[i].Command; {
		case !now.Before(x.list[i].Expires):
			x.drop(i, "expired")
		case c != nil && !x.alive(c.PID, c.Start):
			x.drop(i, "used up")
		default:
			continue
		}
		dropped = true
	}
	if dropped {
		x.store()
	}
}

func (x *exceptions) drop(i int, why string) {
	e := x.list[i]
	x.list = slices.Delete(x.list, i, i+1)
	x.changed(EventExceptionGone, why, &e)
}

func (x *exceptions) find(id uint64) int {
	return slices.IndexFunc(x.list, func(e Exception) bool { return e.ID == id })
}

func (x *exceptions) stored() error {
	if x.save == nil {
		return nil
	}
	return x.save(slices.Clone(x.list))
}

// store saves what has become less. If that fails, the list in memory holds; a successor may find one that was used.
func (x *exceptions) store() {
	if err := x.stored(); err != nil {
		x.failed(err)
	}
}
