// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/guard"
)

// newGuard makes the guard with the policy and the exceptions that hold, and the events that were: the predecessor's, after
// a take-over.
func (w *worker) newGuard(host guard.Host, path string, kept map[string]int) (_ guard.Checker, err error) {
	_, takeover := kept[keptControl] // a worker before this one has left it, a mere preparation has not
	given := path != ""
	if !given {
		path = DefaultPolicy
	}
	root, inView := "", func(string) bool { return false }
	if h, ok := host.(*viewfs.Host); ok {
		root, inView = h.Root(), h.InView
	}
	dir := control.Dir(w.mountpoint)
	w.policy = &policyFile{path: path, given: given, saved: filepath.Join(dir, "policy.toml"), host: host, inView: inView, root: root, log: w.log}
	granted := exceptionFile(filepath.Join(dir, "exceptions.json"))
	c := guard.Config{
		Host: host, HostRoot: root, Log: w.log, ViewRoot: w.mountpoint, Audit: w.auditLog(kept), Changed: w.changed,
		Policy: w.policy.first(takeover), SaveExceptions: granted.save,
	}
	if w.mountpoint == control.SecondName {
		c.ViewRoot = ""
	}
	events := &history{path: filepath.Join(dir, "events.jsonl"), log: w.log}
	c.SaveEvent = events.save
	if takeover {
		if c.History, err = events.load(); err != nil {
			w.log.Warn("the events before the take-over are lost", "error", err)
		}
		// Without them fewer things are allowed, which an administrator sees and can mend.
		if c.Exceptions, err = granted.load(); err != nil {
			w.log.Warn("the exceptions of the predecessor are lost", "error", err)
		}
	} else {
		c.FirstID = firstID()
		// Of a view whose keeper was killed: a successor must not take them for this view's.
		if err := os.Remove(string(granted)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.log.Warn("the exceptions of an earlier view cannot be removed", "error", err)
		}
		if err := events.clear(); err != nil {
			w.log.Warn("events cannot be kept for a successor", "error", err)
		}
	}
	if err := w.policy.save(c.Policy); err != nil {
		w.log.Warn("the policy cannot be written down for a successor", "error", err)
	}
	w.guard, err = guard.New(c)
	w.policy.guard = w.guard
	return w.guard, err
}

// firstID is where a new view begins to count its events: at random, so that the ids of two views, or of two mounts of one,
// do not meet. JSON's readers keep 53 bits of a number.
func firstID() uint64 { return 1 + rand.Uint64N(1<<52) }

// followPolicy keeps the policy up to date; SIGHUP reads it again, and opens the log again.
func (w *worker) followPolicy() {
	hangup, reload := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go w.policy.follow(context.Background(), reload)
	go func() {
		for s := range hangup {
			w.reopenLog()
			reload <- s
		}
	}()
}

// evidenceWarnings says what is wrong with the policy and with the evidence.
func (w *worker) evidenceWarnings() []string {
	var list []string
	if err := w.policy.Fault(); err != nil {
		list = append(list, err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	st, err := w.guard.Status(ctx)
	if err != nil {
		list = append(list, "the evidence cannot be read: "+err.Error())
	}
	for _, p := range st.Problems {
		effect := "what is known from before holds"
		if p.Blind {
			effect = "every image counts as in use"
		}
		list = append(list, fmt.Sprintf("%s cannot be read: %v; %s", p.Path, p.Err, effect))
	}
	for _, p := range st.Pending {
		list = append(list, fmt.Sprintf("%s (of domain %s) does not answer since %s: set aside; what is known of it from "+
			"before holds, and what a VM has open", p.Path, p.Domain, p.Since.Format(time.TimeOnly)))
	}
	for _, d := range st.Stale {
		list = append(list, fmt.Sprintf("libvirt says that domain %s runs, but its process is gone", d))
	}
	return list
}
