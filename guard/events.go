// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"
	"sync"
	"time"
)

// History is how many events are remembered; some 700 bytes each.
const History = 1024

// backlog is how many events a subscriber may lag behind before it loses some.
const backlog = 256

// Events is the stream of events: a bounded history and any number of subscribers. It may be used concurrently.
type Events struct {
	mu   sync.Mutex
	ring []Event // oldest first from next on, once it is full
	next int
	last uint64 // the ID of the newest
	view string // whose they are
	subs map[*Subscription]struct{}
	save func(*Event) // nil: nowhere
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
// events, and can tell by Lost. ID is filled in, and Time if it is zero.
func (s *Events) Publish(e *Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	e.ID, e.View = s.last, s.view
	s.remember(e)
	if s.save != nil {
		s.save(e)
	}
	for sub := range s.subs {
		select {
		case sub.c <- *e:
		default:
			sub.lost++
		}
	}
}

func (s *Events) remember(e *Event) {
	if len(s.ring) < History {
		s.ring = append(s.ring, *e)
		return
	}
	s.ring[s.next] = *e
	s.next = (s.next + 1) % History
}

// restore takes over a predecessor's history, oldest first.
func (s *Events) restore(list []Event) {
	for i := range list {
		s.remember(&list[i])
		s.last = max(s.last, list[i].ID)
	}
}

// Recent is the history, oldest first.
func (s *Events) Recent() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent(0)
}

// recent is the history after an event.
func (s *Events) recent(after uint64) []Event {
	list := slices.Concat(s.ring[s.next:], s.ring[:s.next])
	if after > s.last {
		return list // that was another view's
	}
	return slices.DeleteFunc(list, func(e Event) bool { return e.ID <= after })
}

// Subscribe returns the history after an event (0: all of it) and a subscription that goes on exactly where it ends.
func (s *Events) Subscribe(after uint64) ([]Event, *Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan Event, backlog)
	sub := &Subscription{C: c, c: c, events: s}
	if s.subs == nil {
		s.subs = make(map[*Subscription]struct{})
	}
	s.subs[sub] = struct{}{}
	return s.recent(after), sub
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
