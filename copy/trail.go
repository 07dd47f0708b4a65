package imgcopy

import (
	"os"
	"sync"

	"imgward/copy/internal/sys"
)

// trail keeps what a copy leaves in the page cache short: written ranges are sent to the device a batch at a time, and
// when more than trailLimit has piled up, the oldest batch is waited for and dropped from the cache. Without it a copy
// fills the memory with dirty pages, and every other program on the host waits for them. A nil trail does nothing.
type trail struct {
	f  *os.File
	mu sync.Mutex

	batch     span // around what has been written since the last batch was sent
	collected int64
	sent      []sentBatch
	waiting   int64
}

type sentBatch struct {
	span
	bytes int64 // of the span; the rest are holes, or was written directly
}

const (
	// trailBatch is what a device with a deep queue takes at once. Smaller ones cost more than they bring: scattered
	// 4 KiB blocks want to be sorted.
	trailBatch = 8 << 20
	// trailLimit is nothing beside the memory of a VM host.
	trailLimit = 64 << 20
)

// wrote takes note of a range that was written through the page cache.
func (t *trail) wrote(off, n int64) error {
	if t == nil || n == 0 {
		return nil
	}
	full, old := t.collect(span{off, n})
	if full.n > 0 {
		if err := sys.StartWriteback(t.f, full.off, full.n); err != nil {
			return ignoreUnsupported(outOfSpace(err))
		}
	}
	for _, s := range old {
		if err := sys.FinishWriteback(t.f, s.off, s.n); err != nil {
			return ignoreUnsupported(outOfSpace(err))
		}
		sys.Evict(t.f, s.off, s.n)
	}
	return nil
}

// collect adds to the batch; it returns the batch if it is full, and those batches that have had their time.
func (t *trail) collect(s span) (full span, old []sentBatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.collected == 0 {
		t.batch = s
	}
	end := max(t.batch.end(), s.end())
	t.batch.off = min(t.batch.off, s.off)
	t.batch.n = end - t.batch.off
	if t.collected += s.n; t.collected < trailBatch {
		return span{}, nil
	}
	full = t.batch
	t.sent = append(t.sent, sentBatch{full, t.collected})
	t.waiting += t.collected
	t.collected = 0
	i := 0
	for ; t.waiting > trailLimit; i++ {
		t.waiting -= t.sent[i].bytes
	}
	old, t.sent = t.sent[:i:i], t.sent[i:]
	return full, old
}

// ignoreUnsupported: sync_file_range is a help, and fsync at the end is what counts.
func ignoreUnsupported(err error) error {
	if sys.Unsupported(err) {
		return nil
	}
	return err
}
