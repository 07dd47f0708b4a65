// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"imgward/copy/domain"
	"imgward/copy/domain/archive"
	"imgward/copy/move"
	"imgward/guard"
)

// domainEvent is what --json prints, a line each. Fields that a type has not are left out.
type domainEvent struct {
	Type   string        `json:"type"` // "domain-begin", "file", "domain-end", "domain-plan"
	Domain string        `json:"domain"`
	File   *archive.File `json:"file,omitempty"`
	Done   bool          `json:"done,omitempty"`
	Error  string        `json:"error,omitempty"`
	Plan   *domain.Plan  `json:"plan,omitempty"`
	// Bytes of all the files copied so far, how much data is left, as far as file systems know, and how many domains are done.
	Bytes   int64 `json:"bytes,omitempty"`
	Left    int64 `json:"left_bytes,omitempty"`
	Domains int   `json:"domains,omitempty"`
	Of      int   `json:"of,omitempty"`
}

// domainReporter shows how far a run is.
type domainReporter struct {
	mu          sync.Mutex
	out         io.Writer // of plans and events
	json, quiet bool
	begun       time.Time
	domains, of int
	bytes       int64
	moved       int64                       // of the data that was expected
	left        map[string]int64            // data by image; one that domains share counts once
	images      map[string]map[string]int64 // the images of each domain
	planBytes   int64
	planRate    int64
}

func (f *domainFlags) newDomainReporter(out io.Writer, of int) *domainReporter {
	return &domainReporter{out: out, json: f.json, quiet: f.quiet, begun: time.Now(), of: of, left: make(map[string]int64), images: make(map[string]map[string]int64)}
}

func (r *domainReporter) event(e domainEvent) {
	e.Bytes, e.Domains, e.Of, e.Left = r.bytes, r.domains, r.of, r.sumLeft()
	_ = json.NewEncoder(r.out).Encode(e)
}

func (r *domainReporter) begin(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json {
		r.event(domainEvent{Type: "domain-begin", Domain: name})
	}
}

func (r *domainReporter) file(name string, f archive.File, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if done {
		r.bytes += f.Size
		r.moved += r.left[f.Source]
		delete(r.left, f.Source)
	}
	switch {
	case r.json:
		r.event(domainEvent{Type: "file", Domain: name, File: &f, Done: done})
	case !r.quiet && done:
		fmt.Fprintf(os.Stderr, "imgcp: %s: %s %s, %s\n", printable(name), printable(f.Path), f.State, move.Bytes(f.Size))
	}
}

func (r *domainReporter) end(name string, m archive.Manifest, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.domains++
		for source := range r.images[name] { // what was whole already, or shared
			delete(r.left, source)
		}
	}
	if r.json {
		e := domainEvent{Type: "domain-end", Domain: name, Done: err == nil}
		if err != nil {
			e.Error = err.Error()
		}
		r.event(e)
		return
	}
	for _, o := range m.Omitted {
		fmt.Fprintf(os.Stderr, "imgcp: %s: NOT copied: %s %s: %s\n", printable(name), printable(o.Target), printable(o.Source), printable(o.Why))
	}
	if err != nil || r.quiet {
		return
	}
	if m.Transient {
		fmt.Fprintf(os.Stderr, "imgcp: %s has no definition: it is gone when it stops. To define it: virsh define %s\n", printable(name),
			guard.ShellWord(path.Join(name, archive.LiveXML)))
	}
	fmt.Fprintf(os.Stderr, "imgcp: %s copied (%s, %s); %d of %s, %s in %s%s\n", printable(name), m.Method, move.Count(len(m.Files), "file"), r.domains,
		move.Count(r.of, "domain"), move.Bytes(r.bytes), time.Since(r.begun).Round(time.Second), r.timeLeft(time.Since(r.begun)))
}

// expect takes note of the images of a domain that is to be copied, and how much data they have.
func (r *domainReporter) expect(name string, sizes map[string]int64) {
	r.images[name] = sizes
	for source, n := range sizes {
		r.left[source] = n
	}
}

func (r *domainReporter) sumLeft() (n int64) {
	for _, size := range r.left {
		n += size
	}
	return n
}

// timeLeft says what is left and how long that may take, at the speed so far.
func (r *domainReporter) timeLeft(so time.Duration) string {
	left := r.sumLeft()
	if left == 0 || r.moved == 0 {
		return ""
	}
	d := time.Duration(float64(so) * float64(left) / float64(r.moved))
	return fmt.Sprintf("; %s left, about %s at this speed", move.Bytes(left), d.Round(time.Second))
}

func (r *domainReporter) plan(p domain.Plan, rate int64) {
	r.planBytes += p.Bytes
	r.planRate = rate
	if r.json {
		r.event(domainEvent{Type: "domain-plan", Domain: p.Domain, Plan: &p})
		return
	}
	how := string(p.Method)
	if p.Transient {
		how += ", has no definition"
	}
	fmt.Fprintf(r.out, "%s (%s): %s, %s of data\n", printable(p.Domain), how, move.Count(len(p.Files), "file"), move.Bytes(p.Bytes))
	for _, f := range p.Files {
		fmt.Fprintf(r.out, "  %-12s %-6s %10s  %s\n", f.Kind, f.Target, move.Bytes(f.Size), printable(f.Source))
	}
	for _, o := range p.Omitted {
		fmt.Fprintf(r.out, "  NOT copied   %-6s %s: %s\n", printable(o.Target), printable(o.Source), printable(o.Why))
	}
	for _, why := range p.Obstacles {
		fmt.Fprintf(r.out, "  CANNOT be copied now: %s\n", printable(why))
	}
}

// planned ends a plan with the sum.
func (r *domainReporter) planned() {
	if r.json {
		return
	}
	fmt.Fprintf(r.out, "in all %s of data", move.Bytes(r.planBytes))
	if r.planRate > 0 {
		fmt.Fprintf(r.out, ", at least %s at %s/s", (time.Duration(r.planBytes/r.planRate) * time.Second).String(), move.Bytes(r.planRate))
	}
	fmt.Fprintln(r.out)
}
