package procfs

import (
	"sync"
	"time"
)

// sighting is what was found out about a thread, with what must still be true for it to hold.
type sighting struct {
	start uint64 // of the thread: a recycled thread id has another
	exe   Exe    // exec(2) keeps pid and start time and changes this
	proc  Process
	at    time.Time
}

// fresh is for how long a sighting is believed without a look at the thread's start time. The kernel hands out thread
// ids in turn, so one comes round again only after pid_max others (4 million on 64 bits, 32,768 on the smallest
// hosts), which no machine makes in a second.
const fresh = time.Second

func (s *sighting) recent(now time.Time) bool { return now.Sub(s.at) < fresh }

// maxSightings bounds the memory: a shell script that forks without end must not grow it.
const maxSightings = 4096

// sightings remembers threads by id. It may be used concurrently; the zero value is empty.
type sightings struct {
	mu    sync.RWMutex
	known map[int]sighting
}

func (s *sightings) get(tid int) (sighting, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.known[tid]
	return found, ok
}

func (s *sightings) put(tid int, found sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[int]sighting)
	}
	if len(s.known) >= maxSightings {
		s.forgetOlderHalf(found.at)
	}
	s.known[tid] = found
}

// forgetOlderHalf drops what was seen longest ago, by the mean age, which needs no sorting.
func (s *sightings) forgetOlderHalf(now time.Time) {
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
