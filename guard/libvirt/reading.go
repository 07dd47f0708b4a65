// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

// ErrNoAnswer says of a directory that its file system does not answer.
var ErrNoAnswer = errors.New("the file system does not answer")

// Patience is how long a directory is waited for while nothing of it comes at all. It is waited for once; until it answers,
// every image counts as in use. That is too much to do to a host that is merely busy: 100 ms have refused opens of ordinary
// files in an emulated guest with two writers (6.1, TCG, a load of 20).
const Patience = 2 * time.Second

// reading is one directory being read, by a goroutine that has the directory to itself until done is closed.
type reading struct {
	done    chan struct{}
	steps   atomic.Int64 // answers of the file system, so that one who waits sees it go on
	parsing atomic.Int64 // goroutines that wait for no file system now
	changes []Change
}

// Read implements io.Reader for one who counts the answers of another one.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.steps.Add(1)
	return n, err
}

type counted struct {
	io.Reader
	steps *atomic.Int64
}

// parsed runs the parser.
func (r *reading) parsed(parse func()) {
	r.parsing.Add(1)
	defer r.parsing.Add(-1)
	parse()
	r.steps.Add(1)
}

// begin has a directory read, unless it is being read still, or is known to be as it was.
func (x *Index) begin(d *dir, stale *marks, look *look) {
	d.missed.addAll(stale)
	if d.reading != nil || !d.missed.concerns(d) && d.witness.changedNothing(look) {
		return
	}
	r := &reading{done: make(chan struct{})}
	d.reading = r
	take := d.missed
	d.missed = marks{}
	go func() {
		defer close(r.done)
		defer func() { d.witness = d.findWitness() }()
		if !take.concerns(d) && d.current() {
			return
		}
		x.scan.scan(d, &take, func(name string, f *file) { r.changes = append(r.changes, d.change(name, f)) })
	}()
}

// collect waits until those of the directories that are being read have been, and takes over what was found. It gives up
// when ctx ends, or where nothing has come for Patience: these are late. It does not wait for what was late already.
func (x *Index) collect(ctx context.Context, dirs []*dir) (changes []Change) {
	await(ctx, dirs)
	for _, d := range dirs {
		if d.reading != nil && d.reading.ended() {
			changes = append(changes, d.reading.changes...)
			d.reading, d.late = nil, false
		}
		if c, ok := x.blindness(d); ok {
			changes = append(changes, c)
		}
	}
	return changes
}

func await(ctx context.Context, dirs []*dir) {
	if !slices.ContainsFunc(dirs, func(d *dir) bool { return d.reading != nil }) {
		return // mostly; a timer costs more than that
	}
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	last := steps(dirs)
	for _, d := range dirs {
		for d.reading != nil && !d.late && !d.reading.ended() {
			select {
			case <-d.reading.done:
			case <-ctx.Done():
				return
			case <-timer.C:
				now := steps(dirs)
				for _, d := range dirs {
					d.late = d.late || now == last && d.reading != nil && !d.reading.ended() && d.reading.parsing.Load() == 0
				}
				last = now
				timer.Reset(Patience)
			}
		}
	}
}

func steps(dirs []*dir) (n int64) {
	for _, d := range dirs {
		if d.reading != nil {
			n += d.reading.steps.Load()
		}
	}
	return n
}

func (r *reading) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// fault is why a directory is not known.
func (d *dir) fault() error {
	switch {
	case d.late:
		return ErrNoAnswer
	case d.reading != nil:
		return nil // it is the other goroutine's
	}
	return d.err
}
