// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"sync"
	"time"
)

// observation is what was found out about a thread, with what must still be true for it to hold.
type observation struct {
	start  uint64 // of the thread: a recycled thread id has another
	exe    Exe    // exec(2) keeps pid and start time and changes this
	proc   Process
	parent int
	at     time.Time
	// complete: proc's Kind takes account of its ancestors, too.
	complete bool
}

// fresh is for how long a observation is believed without a look at the thread's start time. The kernel hands out thread
// ids in turn, so one comes round again only after pid_max others (4 million on 64 bits, 32,768 on the smallest
// hosts), which no machine makes in a second.
const fresh = time.Second

func (s *observation) recent(now time.Time) bool { return now.Sub(s.at) < fresh }

// maxObservations bounds the memory: a shell script that forks without end must not grow it.
const maxObservations = 4096

// observations remembers threads by id. It may be used concurrently; the zero value is empty.
type observations struct {
	mu    sync.RWMutex
	known map[int]observation
}

func (s *observations) get(tid int) (observation, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.known[tid]
	return found, ok
}

func (s *observations) put(tid int, found observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[int]observation)
	}
	if len(s.known) >= maxObservations {
		s.forgetOlderHalf(found.at)
	}
	s.known[tid] = found
}

// forgetOlderHalf drops what was seen longest ago, by the mean age, which needs no sorting.
func (s *observations) forgetOlderHalf(now time.Time) {
	var total time.Duration
	for _, old := range s.known {
		total += now.Sub(old.at)
	}
	mean := total / time.Duration(len(s.known))
	for tid, old := range s.known {
		if now.Sub(old.at) >= mean {
			delete(s.known, tid)
		}
	}
}

// marks remembers processes that other evidence has shown to be VMMs, until they execute another program. The zero value
// is empty.
type marks struct {
	mu    sync.RWMutex
	known map[mark]struct{}
}

type mark struct {
	pid   int
	start uint64
	exe   string
}

func markOf(p *Process) mark { return mark{p.PID, p.Start, p.Exe} }

func (m *marks) has(p *Process) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.known[markOf(p)]
	return ok
}

func (m *marks) add(p *Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxObservations { // they are found again
		m.known = make(map[mark]struct{})
	}
	m.known[markOf(p)] = struct{}{}
}
