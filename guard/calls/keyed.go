// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"sync"
	"time"
)

// Keyed makes calls that may never return, one at a time for each key. The zero value is ready for use.
type Keyed struct {
	mu     sync.Mutex
	making map[string]*keyedCall
}

// keyedCall is one that is under way.
type keyedCall struct {
	began time.Time
	done  chan struct{}
}

// Do runs f on another goroutine and waits for it, but no longer than Patience. An earlier call with this key is waited for
// first, but not if it has taken that long already. False: f has not run, or has not ended; what it finds must not be used.
func (k *Keyed) Do(key string, f func()) bool {
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	for {
		c, ours := k.begin(key, f)
		if c == nil {
			return false
		}
		select {
		case <-c.done:
			if ours {
				return true
			}
		case <-timer.C:
			return false
		}
	}
}

// begin makes a call, or returns the earlier one; nil if that one is late.
func (k *Keyed) begin(key string, f func()) (c *keyedCall, ours bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c = k.making[key]; c != nil {
		if time.Since(c.began) >= Patience {
			return nil, false
		}
		return c, false
	}
	if k.making == nil {
		k.making = make(map[string]*keyedCall)
	}
	c = &keyedCall{began: time.Now(), done: make(chan struct{})}
	k.making[key] = c
	go func() {
		defer k.end(key, c)
		f()
	}()
	return c, true
}

func (k *Keyed) end(key string, c *keyedCall) {
	k.mu.Lock()
	delete(k.making, key)
	k.mu.Unlock()
	close(c.done)
}
