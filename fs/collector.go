// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How often garbage is collected. A worker has 3 MiB that live, so that with Go's own choice, which is to collect when that
// has doubled, a third of its work was collecting. It would be told "when 5 MiB have been added, or a quarter", but there is
// no such setting; memory that is never touched, and so is none, stands for it. What the loop answers itself (loopplain.go)
// makes no garbage, so less room will do than did before that: 32 MiB and a third are no faster in what can be measured at a
// load of 20, and take 33 MiB instead of 23 with 100,000 nodes (of which 7 live).
const (
	ballastSize = 16 << 20
	gcPercent   = 25
)

// collectSeldom sets that, unless the environment has its own setting (GOGC), and returns what must be kept.
func collectSeldom() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastSize)
}

// What a burst of requests has left, such as the listing of a hundred thousand files, is given back to the host when nothing
// goes on any more.
const (
	lookEvery = 10 * time.Second
	burst     = 8 << 20   // what is allocated since the last time is worth it
	quiet     = 256 << 10 // what is allocated between two looks of an idle view: it asks itself whether it answers
)

// leftovers says when a view that was busy is idle. The zero value is a view that has just begun.
type leftovers struct{ returned, looked uint64 }

// due takes how many bytes have been allocated in all.
func (l *leftovers) due(allocated uint64) bool {
	idle := allocated-l.looked < quiet
	l.looked = allocated
	if !idle || allocated-l.returned < burst {
		return false
	}
	l.returned = allocated
	return true
}

// returnMemory gives leftovers back until ctx ends.
func returnMemory(ctx context.Context) {
	var l leftovers
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if metrics.Read(sample); l.due(sample[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}
