// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	imgcopy "imgward/copy"
	"imgward/copy/move"
)

// view is one way to show progress. The reporter calls it from one goroutine at a time.
type view interface {
	// tick shows where all images are. It is called every interval.
	tick(s snapshot)
	// step shows what is done to a part of an image (--explain).
	step(j *job, s move.Step)
	// finish shows that an image is done or has failed.
	finish(j *job, r imgcopy.Result, err error)
	// end removes what was only for the moment.
	end()
}

// reporter keeps count of a run and has a view show it.
type reporter struct {
	mu    sync.Mutex
	view  view
	jobs  []*job
	ended map[*job]bool // of those that have begun
	stop  chan struct{}
	done  chan struct{}
	start time.Time
}

// newReporter picks the view: events, a bar, lines, or nothing but results.
func (f *copyFlags) newReporter(jobs []*job) (*reporter, error) {
	var out io.Writer = os.Stdout
	for _, j := range jobs {
		if j.to == "-" {
			out = os.Stderr // standard output is the image
		}
	}
	r := &reporter{jobs: jobs, ended: make(map[*job]bool), stop: make(chan struct{}), done: make(chan struct{}), start: time.Now()}
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	interval := time.Duration(0)
	switch {
	case f.json:
		r.view, interval = newEvents(out), time.Second
	case f.quiet || f.progress == "never":
		r.view = &silent{lines{w: os.Stderr}}
	case terminal:
		r.view, interval = newBar(os.Stderr), 250*time.Millisecond
	case f.progress == "always":
		r.view, interval = &lines{w: os.Stderr, results: true}, time.Second
	default:
		r.view, interval = &lines{w: os.Stderr}, 10*time.Second
	}
	go r.run(interval)
	return r, nil
}

// run ticks, and at SIGUSR1 shows a line at once, as dd does. (Linux has no SIGINFO.)
func (r *reporter) run(interval time.Duration) {
	defer close(r.done)
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	defer signal.Stop(usr1)
	var ticks <-chan time.Time
	if interval > 0 {
		t := time.NewTicker(interval)
		defer t.Stop()
		ticks = t.C
	}
	asked := &lines{w: os.Stderr}
	for {
		select {
		case <-r.stop:
			return
		case <-usr1:
			r.locked(func() { asked.tick(r.snapshot()) })
		case <-ticks:
			r.locked(func() { r.view.tick(r.snapshot()) })
		}
	}
}

func (r *reporter) locked(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *reporter) begin(j *job) {
	r.locked(func() { r.ended[j] = false })
}

func (r *reporter) step(j *job, s move.Step) {
	r.locked(func() { r.view.step(j, s) })
}

func (r *reporter) finish(j *job, result imgcopy.Result, err error) {
	r.locked(func() {
		r.ended[j] = true
		r.view.finish(j, result, err)
	})
}

func (r *reporter) end() {
	close(r.stop)
	<-r.done
	r.locked(r.view.end)
}
