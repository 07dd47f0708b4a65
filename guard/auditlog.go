// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"

	"golang.org/x/time/rate"

	"imgward/guard/kaudit"
)

// AuditLog is the kernel's audit log.
type AuditLog interface {
	// Send writes one record. It may wait for a minute, while auditd is behind. kaudit.ErrNone: there is no such log.
	Send(kind uint16, text string) error
}

// audit passes an event on to the audit log. It never waits.
func (g *Guard) audit(e *Event) {
	if g.config.Audit == nil {
		return
	}
	select {
	case g.audits <- *e:
	default:
		g.counters.unexplained.Add(1)
	}
}

// keepAudit writes to the audit log until ctx ends, or there proves to be none. Refusals are bounded as in the log;
// exceptions are made by hand, and all written.
func (g *Guard) keepAudit(ctx context.Context) {
	limit := rate.NewLimiter(logsPerSecond, logsAtOnce)
	usable := true
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-g.audits:
			if !usable || e.Type == EventRefusal && !limit.Allow() {
				continue
			}
			err := g.config.Audit.Send(kaudit.TrustedApp, auditText(&e))
			if errors.Is(err, kaudit.ErrNone) {
				usable = false
			}
			if err != nil {
				g.log.Info("no record in the kernel's audit log", "error", err)
			}
		}
	}
}

// auditText is an event as a record. Names are those of auditd's field dictionary where it has one: o… is the process
// that was refused, for pid, uid and exe of the record are the daemon's own.
func auditText(e *Event) string {
	var f kaudit.Fields
	if e.Exception != nil {
		x := e.Exception
		f.Word("op", "imgward-"+string(e.Type))
		f.Name("change", e.Change)
		f.Word("id", x.ID)
		f.Name("path", x.Path)
		f.Word("perm", x.Ops)
		f.Word("ouid", x.UID)
		f.Word("oauid", auditUID(x.LoginUID))
		f.Word("expires", x.Expires.Unix())
		f.Name("reason", x.Reason)
		f.Name("terminal", x.TTY)
		f.Word("res", "success")
		return f.String()
	}
	f.Word("op", "imgward-"+string(e.Op))
	f.Name("path", e.Path)
	f.Name("vm", e.Domain)
	f.Name("uuid", e.UUID)
	f.Name("dev", e.Target)
	f.Word("opid", e.PID)
	f.Word("ouid", *e.UID)
	f.Word("oauid", auditUID(e.LoginUID))
	f.Name("ocomm", e.Comm)
	f.Name("cmd", e.Exe)
	f.Word("errno", e.Errno)
	if e.Audit { // as SELinux says it
		f.Word("permissive", 1)
		f.Word("res", "success")
		return f.String()
	}
	f.Word("res", "failed")
	return f.String()
}

// auditUID is a login uid as the kernel writes it where none is set.
func auditUID(uid *uint32) uint32 {
	if uid == nil {
		return ^uint32(0)
	}
	return *uid
}
