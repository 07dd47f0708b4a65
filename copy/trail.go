package imgcopy

import (
	"os"
	"sync"

	"imgward/copy/internal/sys"
)

// trail keeps what a copy leaves in the page cache short: written ranges are sent to the device at once, and when more
// than trailLimit has piled up, the oldest range is waited for and dropped from the cache. Without it a copy fills the
// memory with dirty pages, and every other program on the host waits for them.
type trail struct {
	f     *os.File
	mu    sync.Mutex
	spans []span
	bytes int64
}

// trailLimit is large enough to keep a device with a deep queue busy, and nothing beside the memory of a VM host.
const trailLimit = 64 << 20

// wrote takes note that a range was written. A nil trail does nothing.
func (t *trail) wrote(off, n int64) error {
	if t == nil || n == 0 {
		return nil
	}
	if err := sys.StartWriteback(t.f, off, n); err != nil {
		return ignoreUnsupported(outOfSpace(err))
	}
	for _, s := range t.push(span{off, n}) {
		if err := sys.FinishWriteback(t.f, s.off, s.n); err != nil {
			return ignoreUnsupported(outOfSpace(err))
		}
		sys.Evict(t.f, s.off, s.n)
	}
	return nil
}

// push appends a span and returns those that have had their time.
func (t *trail) push(s span) []span {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
	t.bytes += s.n
	i := 0
	for ; t.bytes > trailLimit; i++ {
		t.bytes -= t.spans[i].n
	}
	old := t.spans[:i:i]
	t.spans = t.spans[i:]
	return old
}

// ignoreUnsupported: sync_file_range is a help, and fsync at the end is what counts.
func ignoreUnsupported(err error) error {
	if sys.Unsupported(err) {
		return nil
	}
	return err
}
