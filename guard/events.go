package guard

import (
	"sync"
	"time"
)

// Bounds on the event stream.
const (
	history = 1024 // events that are remembered; some 400 bytes each
	backlog = 256  // events that a subscriber may lag behind before it loses some
)

// Events is the stream of events: a bounded history and any number of subscribers. It may be used concurrently.
type Events struct {
	mu   sync.Mutex
	ring []Event // oldest first from next on, once it is full
	next int
	subs map[*Subscription]struct{}
}

// Subscription receives events from the moment of Subscribe on.
type Subscription struct {
	// C is closed by Close.
	C      <-chan Event
	c      chan Event
	events *Events
	lost   uint64
}

// Publish adds an event and hands it to all subscribers. It never blocks: a subscriber that lags too far behind loses
// events, and can tell by Lost. Time is filled in if it is zero.
func (s *Events) Publish(e *Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) < history {
		s.ring = append(s.ring, *e)
	} else {
		s.ring[s.next] = *e
		s.next = (s.next + 1) % history
	}
	for sub := range s.subs {
		select {
		case sub.c <- *e:
		default:
			sub.lost++
		}
	}
}

// Recent is the history, oldest first.
func (s *Events) Recent() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent()
}

func (s *Events) recent() []Event {
	return append(append(make([]Event, 0, len(s.ring)), s.ring[s.next:]...), s.ring[:s.next]...)
}

// Subscribe returns the history and a subscription that goes on exactly where it ends.
func (s *Events) Subscribe() ([]Event, *Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan Event, backlog)
	sub := &Subscription{C: c, c: c, events: s}
	if s.subs == nil {
		s.subs = make(map[*Subscription]struct{})
	}
	s.subs[sub] = struct{}{}
	return s.recent(), sub
}

// Lost is how many events the subscriber was too slow for.
func (sub *Subscription) Lost() uint64 {
	sub.events.mu.Lock()
	defer sub.events.mu.Unlock()
	return sub.lost
}

// Close ends the subscription. It may be called more than once.
func (sub *Subscription) Close() {
	sub.events.mu.Lock()
	defer sub.events.mu.Unlock()
	if _, ok := sub.events.subs[sub]; ok {
		delete(sub.events.subs, sub)
		close(sub.c)
	}
}
