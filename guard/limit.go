// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"sync"
	"time"
)

// quiet is how long after an explanation the same process is not told the same again.
const quiet = 5 * time.Second

// maxTold bounds what is remembered of whom was told what. While it is full, new refusals are counted, not explained:
// that is 800 a second, which nobody reads.
const maxTold = 4096

// topic is what an explanation is about.
type topic struct {
	pid   int
	start uint64
	image ID
	op    Op
}

// limiter lets one explanation of each topic through in a while.
type limiter struct {
	mu     sync.Mutex
	told   map[topic]*told
	sweeps time.Time // when old topics were last forgotten
}

// sweepEvery bounds what a flood costs: looking at all topics for each of 10,000 refusals a second would take a processor.
const sweepEvery = 500 * time.Millisecond

type told struct {
	at         time.Time
	suppressed uint64 // refusals since then
}

// admit says whether to explain, and how often it was not done since the last time.
func (l *limiter) admit(t topic, now time.Time) (suppressed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.told[t]; last != nil {
		if now.Sub(last.at) < quiet {
			last.suppressed++
			return 0, false
		}
		suppressed = last.suppressed
		*last = told{at: now}
		return suppressed, true
	}
	if len(l.told) >= maxTold && now.Sub(l.sweeps) >= sweepEvery {
		l.forget(now)
	}
	if len(l.told) >= maxTold {
		return 0, false
	}
	if l.told == nil {
		l.told = make(map[topic]*told)
	}
	l.told[t] = &told{at: now}
	return 0, true
}

func (l *limiter) forget(now time.Time) {
	l.sweeps = now
	for t, last := range l.told {
		if now.Sub(last.at) >= quiet {
			delete(l.told, t)
		}
	}
}
