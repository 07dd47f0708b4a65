// SPDX-License-Identifier: Apache-2.0

package move

import (
	"os"
	"sync"

	"imgward/copy/internal/sys"
)

// writeback keeps what a copy leaves in the page cache short: written ranges are sent to the device a batch at a time, and
// when more than writebackLimit has piled up, the oldest batch is waited for and dropped from the cache. Without it a copy
// fills the memory with dirty pages, and every other program on the host waits for them. Nil does nothing.
type writeback struct {
	f  *os.File
	mu sync.Mutex

	batch     Span // around what has been written since the last batch was sent
	collected int64
	sent      []sentBatch
	waiting   int64
}

type sentBatch struct {
	Span
	bytes int64 // of the span; the rest are holes, or was written directly
}

const (
	// writebackBatch is what a device with a deep queue takes at once. Smaller ones cost more than they bring: scattered
	// 4 KiB blocks want to be sorted.
	writebackBatch = 8 << 20
	// writebackLimit is little of the memory of a VM host.
	writebackLimit = 64 << 20
)

// wrote takes note of a range that was written through the page cache.
func (t *writeback) wrote(off, n int64) error {
	if t == nil || n == 0 {
		return nil
	}
	full, old := t.collect(Span{off, n})
	if full.N > 0 {
		if err := sys.StartWriteback(t.f, full.Off, full.N); err != nil {
			return ignoreUnsupported(OutOfSpace(err))
		}
	}
	for _, s := range old {
		if err := sys.FinishWriteback(t.f, s.Off, s.N); err != nil {
			return ignoreUnsupported(OutOfSpace(err))
		}
		sys.Evict(t.f, s.Off, s.N)
	}
	return nil
}

// collect adds to the batch; it returns the batch if it is full, and those batches that have had their time.
func (t *writeback) collect(s Span) (full Span, old []sentBatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.collected == 0 {
		t.batch = s
	}
	end := max(t.batch.End(), s.End())
	t.batch.Off = min(t.batch.Off, s.Off)
	t.batch.N = end - t.batch.Off
	if t.collected += s.N; t.collected < writebackBatch {
		return Span{}, nil
	}
	full = t.batch
	t.sent = append(t.sent, sentBatch{full, t.collected})
	t.waiting += t.collected
	t.collected = 0
	i := 0
	for ; t.waiting > writebackLimit; i++ {
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
