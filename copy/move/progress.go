// SPDX-License-Identifier: Apache-2.0

package move

import "sync/atomic"

// Progress counts what a copy has done so far, in bytes of the image. It may be read at any time while the copy runs;
// the counters only grow.
type Progress struct {
	Size    atomic.Int64 // of the image; 0 while unknown (a pipe)
	Data    atomic.Int64 // an estimate of the data in it, holes apart
	Read    atomic.Int64 // read from the source
	Written atomic.Int64 // data written
	Cloned  atomic.Int64 // shared or copied by the kernel
	Zeroes  atomic.Int64 // read, but found to be zeroes and not written
	Holes   atomic.Int64 // skipped: holes of the source
	Checked atomic.Int64 // read back for verification
	Resumed atomic.Int64 // copied by an earlier run

	phase  atomic.Value // Phase
	method atomic.Value // Method
}

// Phase is what a copy is busy with.
type Phase string

// The phases in their order.
const (
	PhaseCopy   Phase = "copy"
	PhaseSync   Phase = "sync"
	PhaseVerify Phase = "verify"
	PhaseDone   Phase = "done"
)

// Phase returns what the copy is busy with; "" before it begins.
func (p *Progress) Phase() Phase {
	v, _ := p.phase.Load().(Phase)
	return v
}

// Method returns how data is being moved.
func (p *Progress) Method() Method {
	v, _ := p.method.Load().(Method)
	return v
}

// Moved is the data dealt with so far, by whatever method, to be held against Data.
func (p *Progress) Moved() int64 {
	return p.Written.Load() + p.Cloned.Load() + p.Zeroes.Load()
}

// SetPhase says what the copy is busy with from now on.
func (p *Progress) SetPhase(now Phase) { p.phase.Store(now) }

// SetMethod says how data is being moved from now on.
func (p *Progress) SetMethod(m Method) { p.method.Store(m) }
