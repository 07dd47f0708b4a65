// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"sync"
	"time"
)

// Keyed makes calls that may never return, one at a time for each key. The zero value is ready for use.
type Keyed struct {
	mu     sync.Mutex
	making map[string]bool
}

// Do runs f on another goroutine and waits for it, but no longer than Patience, and not at all while an earlier call with
// this key has not returned. False: f has not ended; what it finds must not be used.
func (k *Keyed) Do(key string, f func()) bool {
	if !k.begin(key) {
		return false
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer k.end(key)
		f()
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (k *Keyed) begin(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.making[key] {
		return false
	}
	if k.making == nil {
		k.making = make(map[string]bool)
	}
	k.making[key] = true
	return true
}

func (k *Keyed) end(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.making, key)
}
