package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
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
		path = defaultPolicy
	}
	if strings.HasPrefix(path, w.mountpoint+"/") {
		return nil, fmt.Errorf("policy %s: it may not be inside the view, which it is about", path)
	}
	root := ""
	if h, ok := host.(*viewfs.Host); ok {
		root = h.Root()
	}
	dir := control.Dir(w.mountpoint)
	w.policy = &policyFile{path: path, given: given, saved: filepath.Join(dir, "policy.toml"), host: host, root: root, log: w.log}
	granted := exceptionFile(filepath.Join(dir, "exceptions.json"))
	c := guard.Config{
		Host: host, HostRoot: root, Log: w.log, ViewRoot: w.mountpoint, Audit: w.auditLog(kept),
		Policy: w.policy.first(takeover), SaveExceptions: granted.save,
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
		os.Remove(string(granted)) // of a view whose keeper was killed
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

// followPolicy keeps the policy up to date; SIGHUP reads it again.
func (w *worker) followPolicy() {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go w.policy.follow(context.Background(), hangup)
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
	for _, d := range st.Stale {
		list = append(list, fmt.Sprintf("libvirt says that domain %s runs, but its process is gone", d))
	}
	return list
}
