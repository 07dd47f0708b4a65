package guard

import (
	"context"
	"log/slog"
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
		path = g.below(r.Path())
	}
	e := &Event{
		Type: EventRefusal, Time: now, Op: r.Op, Path: path,
		PID: v.Caller.PID, Comm: v.Caller.Comm, Exe: v.Caller.Exe, UID: &v.Caller.UID, Class: v.Caller.Class,
		Domain: use.Domain, UUID: use.UUID, Target: use.Target, VMM: use.PID,
		Errno: unix.ErrnoName(v.Errno), Reason: v.Reason, Audit: v.Audit, Suppressed: suppressed,
	}
	if uid, ok := g.regime.Load().procs.FS.LoginUID(v.Caller.PID); ok && v.Caller.PID != 0 {
		e.LoginUID = &uid
	}
	g.events.Publish(e)
	g.record(e)
	g.audit(e)
	if !v.Audit {
		g.explain(r, v, path)
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
func (g *Guard) explain(r *Request, v *Verdict, path string) {
	if v.Caller.PID == 0 {
		return
	}
	tell := terminal.Tell
	if v.Caller.Class == ClassVMM {
		tell = terminal.TellVMM
	}
	x := explanation{request: r, verdict: v, path: path, root: g.config.ViewRoot}
	if err := tell(g.regime.Load().procs.FS, v.Caller.PID, x.line); err != nil {
		g.log.Debug("the caller could not be told", "pid", v.Caller.PID, "err", err)
	}
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

func logRefusal(log *slog.Logger, e *Event) {
	message := "refused"
	if e.Audit {
		message = "would have refused"
	}
	log.Warn(message, "op", e.Op, "path", e.Path, "pid", e.PID, "comm", e.Comm, "exe", e.Exe, "uid", *e.UID,
		"login_uid", loginOf(e.LoginUID), "class", e.Class, "domain", e.Domain, "target", e.Target, "vmm_pid", e.VMM, "errno", e.Errno,
		"reason", e.Reason, "suppressed", e.Suppressed)
}
