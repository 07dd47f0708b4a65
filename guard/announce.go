// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"time"
)

// What happens to domains and exceptions goes into the log and the event stream.

// domainChanged is told of each status file that came, changed in what matters, or went.
func (g *Guard) domainChanged(d *domain, change, images string) {
	g.events.Publish(&Event{Type: EventDomain, Domain: d.Name, UUID: d.UUID, VMM: d.PID, Change: change, Reason: images})
	g.log.Info("domain "+change, "domain", d.Name, "vmm_pid", d.PID, "images", images)
}

// domainUnreadable is told of a status file or directory that cannot be read, once for each time that it becomes so.
func (g *Guard) domainUnreadable(path string, err error, d *domain) {
	consequence := "what is known of it from before still holds"
	switch {
	case d == nil: // it is no fault
		return
	case d.Blind && d.PID != 0:
		consequence = fmt.Sprintf("only what its process %d has open is in use, as far as anybody knows", d.PID)
	case d.Blind:
		consequence = "every image counts as in use until it can be read"
	}
	g.log.Warn("libvirt's file cannot be read: "+consequence, "file", path, "err", err)
	g.events.Publish(&Event{Type: EventUnreadable, Source: path, Reason: err.Error() + ": " + consequence})
}

// pathHangs is told of each path that does not answer in time.
func (g *Guard) pathHangs(l *domainImage) {
	g.log.Info("a path does not answer: it is set aside", "path", *l.at.Load(), "domain", l.domain.Name)
}

func (g *Guard) exceptionChanged(t EventType, change string, e *Exception) {
	saved := *e
	event := &Event{Type: t, Path: e.Path, UID: &saved.UID, Reason: e.Reason, Change: change, Exception: &saved}
	g.events.Publish(event)
	g.audit(event)
	g.config.Changed()
	g.log.Info(string(t), "change", change, "id", e.ID, "path", e.Path, "ops", e.Ops.String(), "uid", e.UID,
		"login_uid", loginOf(e.LoginUID), "tty", e.TTY, "expires", e.Expires, "reason", e.Reason)
}

// loginOf is the login uid for a log: -1 where it is not set, as the kernel's audit writes it.
func loginOf(uid *uint32) int64 {
	if uid == nil {
		return -1
	}
	return int64(*uid)
}

// TakenOver notes that this Guard's process serves in the place of one that ended: the generation'th, after a pause (0: not
// known how long).
func (g *Guard) TakenOver(generation uint64, pause time.Duration) {
	g.events.Publish(&Event{Type: EventTakeover, Generation: generation, Pause: pause.Seconds()})
}

// Began notes that the view was mounted, served by a version, its data going by a mode ("passthrough", "daemon"); or that the
// second layer protects, by the parts in mode.
func (g *Guard) Began(version, mode string) {
	source, kind, what := g.Policy().Source, EventBegin, "the view has begun"
	if g.beside() {
		kind, what = EventGuardBegin, "the second layer protects"
	}
	g.events.Publish(&Event{Type: kind, Version: version, Mode: mode, Source: source})
	g.log.Info(what, "version", version, "mode", mode, "policy", source)
}

// Ended notes that the view has ended, or the second layer.
func (g *Guard) Ended() {
	kind, what := EventEnd, "the view has ended"
	if g.beside() {
		kind, what = EventGuardEnd, "the second layer has ended: nothing of it is left"
	}
	g.events.Publish(&Event{Type: kind})
	g.log.Info(what)
}

// beside says whether this is the second layer's Guard, which has no view.
func (g *Guard) beside() bool { return g.config.ViewRoot == "" }

func (g *Guard) notStored(err error) {
	g.log.Error("exceptions cannot be stored: one that is used up may come back with the next start of imgward", "err", err)
}
