// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"imgward/copy/move"
)

// snapshot is where a run is at one moment.
type snapshot struct {
	elapsed time.Duration
	ended   int // images
	images  int
	current *job // the one to name: the first that is under way
	phase   move.Phase
	method  move.Method
	moved   int64 // bytes of data dealt with, over all images that were begun
	data    int64 // of their data, as far as is known; 0: not known (a pipe)
	checked int64
	holes   int64
}

// snapshot adds the images up. The caller holds the lock.
func (r *reporter) snapshot() snapshot {
	s := snapshot{elapsed: time.Since(r.start), images: len(r.jobs)}
	known := true
	for _, j := range r.jobs {
		ended, begun := r.ended[j]
		if !begun {
			continue
		}
		p := &j.prog
		moved := p.Moved()
		s.moved += moved
		s.holes += p.Holes.Load()
		s.checked += p.Checked.Load()
		s.data += max(p.Data.Load()-p.Resumed.Load(), moved)
		known = known && p.Data.Load() > 0
		switch {
		case ended:
			s.ended++
		case s.current == nil:
			s.current, s.phase, s.method = j, p.Phase(), p.Method()
		}
	}
	if !known {
		s.data = 0
	}
	return s
}

// rate is in bytes per second, over all of the run.
func (s snapshot) rate() float64 {
	return float64(s.moved) / max(s.elapsed.Seconds(), 0.001)
}

// left is the time until everything begun has been moved; negative if that cannot be known.
func (s snapshot) left() time.Duration {
	if s.data == 0 || s.moved == 0 {
		return -1
	}
	return time.Duration(float64(s.data-s.moved) / s.rate() * float64(time.Second))
}

// line is the state in one line: name, amount, rate, time left, way.
func (s snapshot) line() string {
	text := ""
	if s.images > 1 {
		text = fmt.Sprintf("[%d/%d] ", min(s.ended+1, s.images), s.images)
	}
	if s.current != nil {
		text += printable(s.current.from) + ": "
	}
	switch s.phase {
	case "":
		return text + "looking at both sides, and at who uses them"
	case move.PhaseVerify:
		return text + "verifying, " + move.Bytes(s.checked) + " read back"
	case move.PhaseSync:
		return text + "waiting for the medium"
	}
	text += move.Bytes(s.moved)
	if s.data > 0 {
		text += fmt.Sprintf(" of %s (%d %%)", move.Bytes(s.data), 100*s.moved/s.data)
	}
	if s.holes > 0 {
		text += " + " + move.Bytes(s.holes) + " holes"
	}
	text += fmt.Sprintf(", %s/s", move.Bytes(int64(s.rate())))
	if left := s.left(); left >= 0 {
		text += ", " + left.Round(time.Second).String() + " left"
	}
	if s.method != "" {
		text += ", " + string(s.method)
	}
	return text
}
