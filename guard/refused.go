// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"imgward/guard/terminal"
)

// Refused implements Checker.
func (g *Guard) Refused(r *Request, v *Verdict) {
	now := time.Now()
	use := firstUse(v)
	g.counters.refused(RefusalKey{Op: r.Op, Domain: use.Domain, Class: v.Caller.Class, Audit: v.Audit})
	suppressed, ok := g.limiter.admit(topic{v.Caller.PID, v.Caller.Start, r.Image, r.Op}, now)
	if !ok {
		g.counters.unexplained.Add(1)
		return
	}
	path := ""
	if r.Path != nil {
		path = r.Path()
		if g.config.ViewRoot != "" {
			path = g.below(path)
		}
	}
	e := &Event{
		Type: EventRefusal, Time: now, Op: r.Op, Path: path,
		PID: v.Caller.PID, Comm: v.Caller.Comm, Exe: v.Caller.Exe, UID: &v.Caller.UID, Class: v.Caller.Class,
		Domain: use.Domain, UUID: use.UUID, Target: use.Target, VMM: use.PID,
		Errno: unix.ErrnoName(v.Errno), Reason: v.Reason, Audit: v.Audit, Suppressed: suppressed,
		Message: g.explanation(r, v, path).line(),
	}
	if uid, ok := g.inForce.Load().procs.FS.LoginUID(v.Caller.PID); ok && v.Caller.PID != 0 {
		e.LoginUID = &uid
	}
	g.events.Publish(e)
	g.record(e)
	g.audit(e)
	if !v.Audit {
		g.explain(v, e.Message)
	}
}

// firstUse is the use that a refusal is about; the zero Use if it is about a writer.
func firstUse(v *Verdict) Use {
	if len(v.Uses) == 0 {
		return Use{}
	}
	return v.Uses[0]
}

// explain writes the line where the person who ran the command sees it. It does so now, before the caller gets its
// errno: a moment later the command has ended, and its terminal cannot be found any more.
func (g *Guard) explain(v *Verdict, line string) {
	if v.Caller.PID == 0 {
		return
	}
	tell := terminal.Tell
	if v.Caller.Class == ClassVMM {
		tell = terminal.TellVMM
	}
	say := func() string { return line }
	err := tell(g.inForce.Load().procs.FS, v.Caller.PID, say)
	if err != nil && v.Caller.TTY != 0 {
		err = terminal.TellDevice(v.Caller.TTY, say)
	}
	if err != nil {
		g.log.Debug("the caller could not be told", "pid", v.Caller.PID, "err", err)
	}
}

// explanation puts a refusal into words.
func (g *Guard) explanation(r *Request, v *Verdict, path string) *explanation {
	x := &explanation{request: r, verdict: v, path: path, root: g.config.ViewRoot}
	if v.Caller.PID != 0 {
		x.args = func() []string { return g.argsOf(v.Caller.PID) }
	}
	return x
}

// argsOf is a process's command line, none where its memory does not answer: that may be a file of a file system of its own.
func (g *Guard) argsOf(pid int) []string {
	var args []string
	if !g.lookups.Do("arguments of "+strconv.Itoa(pid), func() { args = g.inForce.Load().procs.FS.Args(pid) }) {
		return nil
	}
	return args
}

// Bounds on what is logged: what is beyond is in the counters and in the event stream.
const (
	logsPerSecond = 20
	logsAtOnce    = 100
	logsWaiting   = 256 // a log that does not take anything (a stuck journald) must not hold up an answer
)

// record passes an event on to the log.
func (g *Guard) record(e *Event) {
	select {
	case g.records <- *e:
	default:
		g.counters.unexplained.Add(1)
	}
}

// keepLog writes refusals to the log until ctx ends.
func (g *Guard) keepLog(ctx context.Context) {
	limit, skipped := rate.NewLimiter(logsPerSecond, logsAtOnce), 0
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-g.records:
			if !limit.Allow() {
				skipped++
				continue
			}
			if skipped > 0 {
				g.log.Warn("refusals were not logged, for there are too many", "count", skipped)
				skipped = 0
			}
			logRefusal(g.log, &e)
		}
	}
}

// RefusalMessageID marks refusals in the journal: journalctl MESSAGE_ID=….
const RefusalMessageID = "3d2a9b6c7f0e4b59a1c85e0f6d47b213"

// MessageID is the attribute that carries one. A record with it is a sentence for people: what else there is to say of it
// is in its attributes alone.
const MessageID = "message_id"

func logRefusal(log *slog.Logger, e *Event) {
	log.Warn(e.Message, MessageID, RefusalMessageID, "op", e.Op, "path", e.Path, "pid", e.PID, "comm", e.Comm, "exe", e.Exe, "uid", *e.UID,
		"login_uid", loginOf(e.LoginUID), "class", e.Class, "domain", e.Domain, "target", e.Target, "vmm_pid", e.VMM, "errno", e.Errno,
		"reason", e.Reason, "suppressed", e.Suppressed)
}
