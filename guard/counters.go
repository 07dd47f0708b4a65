// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// LatencyBounds are the upper ends of Counters.Latency: from a holder's fast path to a walk through a loaded host's /proc.
var LatencyBounds = [...]time.Duration{
	5 * time.Microsecond, 20 * time.Microsecond, 100 * time.Microsecond, 500 * time.Microsecond, 2 * time.Millisecond,
	10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond, time.Second,
}

// Counters count since the Guard was made. All of them only grow.
type Counters struct {
	Allowed  uint64 // answers of Check
	Denied   uint64
	Audited  uint64 // let through, since the policy only watches
	Excepted uint64 // let through by an exception, if its Spend agreed
	// Latency counts answers by how long Check took: Latency[i] up to LatencyBounds[i], the last one all above.
	Latency     [len(LatencyBounds) + 1]uint64
	LatencySum  time.Duration
	Refusals    map[RefusalKey]uint64 // given to callers (Refused), by what, for whom and to whom
	Unexplained uint64                // refusals that were counted only: too many of the same, or at once
}

// RefusalKey is what refusals are counted by.
type RefusalKey struct {
	Op     Op
	Domain string // empty where none is known
	Class  Class  // of the caller
	Audit  bool
}

// maxKeys bounds the counters by domain: what is beyond is counted without its domain. A host has that many domains only
// when somebody makes and removes them all day.
const maxKeys = 4096

// counters is Counters while it counts.
type counters struct {
	allowed, denied, audited, excepted, unexplained atomic.Uint64

	latency [len(LatencyBounds) + 1]atomic.Uint64
	sum     atomic.Int64

	mu       sync.Mutex
	refusals map[RefusalKey]uint64
}

func (c *counters) decided(v *Verdict, took time.Duration) {
	switch {
	case v.Audit:
		c.audited.Add(1)
	case v.Spend != nil:
		c.excepted.Add(1)
	case v.Allowed:
		c.allowed.Add(1)
	default:
		c.denied.Add(1)
	}
	i := 0
	for i < len(LatencyBounds) && took > LatencyBounds[i] {
		i++
	}
	c.latency[i].Add(1)
	c.sum.Add(int64(took))
}

func (c *counters) refused(k RefusalKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = make(map[RefusalKey]uint64)
	}
	if _, known := c.refusals[k]; !known && len(c.refusals) >= maxKeys {
		k.Domain = ""
	}
	c.refusals[k]++
}

// Counters returns the counters as they are now.
func (g *Guard) Counters() Counters {
	c := &g.counters
	out := Counters{
		Allowed: c.allowed.Load(), Denied: c.denied.Load(), Audited: c.audited.Load(), Excepted: c.excepted.Load(),
		LatencySum: time.Duration(c.sum.Load()), Unexplained: c.unexplained.Load(),
	}
	for i := range c.latency {
		out.Latency[i] = c.latency[i].Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Refusals = maps.Clone(c.refusals)
	return out
}
