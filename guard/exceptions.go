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
		proc := g.regime.Load().procs.FS
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

// excepted finds an exception for the request, and returns what uses it up; nil if there is none.
func (q *inquiry) excepted() (spend func() bool) {
	x := &q.g.exceptions
	for _, e := range x.current(time.Now()) {
		if e.covers(q.Image, q.Op, q.caller.UID, time.Now()) && q.sameLogin(&e) && q.sameFile(&e) {
			op, caller := q.Op, q.caller
			return func() bool { return x.spend(e.ID, op, &caller) }
		}
	}
	return nil
}

func (q *inquiry) sameLogin(e *Exception) bool {
	if e.LoginUID == nil {
		return true
	}
	uid, ok := q.procs.FS.LoginUID(q.caller.PID)
	return ok && uid == *e.LoginUID
}

// sameFile says whether the image is the file that the exception was made for, and not a later one with its inode number.
func (q *inquiry) sameFile(e *Exception) bool {
	if e.Born.IsZero() {
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
	return Born(fd).Equal(e.Born)
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

// spend uses an exception for an operation of one process.
func (x *exceptions) spend(id uint64, op Op, by *Process) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expire(time.Now())
	i := x.find(id)
	if i < 0 {
		return false
	}
	used := x.list[i]
	x.changed(EventExceptionUsed, fmt.Sprintf("%s by %s (pid %d)", op, by.Comm, by.PID), &used)
	if used.Uses == 0 {
		return true
	}
	if x.list[i].Uses--; x.list[i].Uses == 0 {
		x.drop(i, "used up")
	}
	x.store()
	return true
}

func (x *exceptions) current(now time.Time) []Exception {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expire(now)
	return slices.Clone(x.list)
}

// expire drops what has run out.
func (x *exceptions) expire(now time.Time) {
	dropped := false
	for i := len(x.list) - 1; i >= 0; i-- {
		if !now.Before(x.list[i].Expires) {
			x.drop(i, "expired")
			dropped = true
		}
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
