// SPDX-License-Identifier: Apache-2.0

// Package rescue keeps the account of what could not be read, in GNU ddrescue's mapfile format, so that ddrescue,
// ddrescuelog and ddrescueview can go on where a copy had to stop.
package rescue

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Range is [Off, Off+Len) of an image.
type Range struct {
	Off int64 `json:"offset"`
	Len int64 `json:"length"`
}

func (r Range) end() int64 { return r.Off + r.Len }

// Map knows the bad ranges of an image of a given size. Its methods may be called at the same time.
type Map struct {
	mu  sync.Mutex
	bad []Range
}

// MarkBad adds a range.
func (m *Map) MarkBad(off, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bad = append(m.bad, Range{off, n})
}

// MarkGood takes a range out that was read in the end. What it has of good ones is let be.
func (m *Map) MarkGood(off, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := m.bad[:0:0]
	for _, r := range m.bad {
		if off >= r.end() || off+n <= r.Off {
			rest = append(rest, r)
			continue
		}
		if off > r.Off {
			rest = append(rest, Range{r.Off, off - r.Off})
		}
		if off+n < r.end() {
			rest = append(rest, Range{off + n, r.end() - off - n})
		}
	}
	m.bad = rest
}

// Bad returns the bad ranges in order, neighbours and overlaps merged.
func (m *Map) Bad() []Range {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.bad, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	merged := m.bad[:0:0]
	for _, r := range m.bad {
		if last := len(merged) - 1; last >= 0 && merged[last].end() >= r.Off {
			merged[last].Len = max(merged[last].Len, r.end()-merged[last].Off)
			continue
		}
		merged = append(merged, r)
	}
	m.bad = merged
	return slices.Clone(merged)
}

// Missing is the number of bytes in bad ranges.
func (m *Map) Missing() int64 {
	var n int64
	for _, r := range m.Bad() {
		n += r.Len
	}
	return n
}

// Magic is how every map of imgcp begins. ddrescue's own say that they are ddrescue's.
const Magic = "# Mapfile. Created by imgcp"

// Write writes the map of an image of size bytes: finished (+) but for bad sectors (-). The format is that of ddrescue's
// manual, "Mapfile structure".
func (m *Map) Write(w io.Writer, size int64) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, Magic+"\n# current_pos  current_status  current_pass\n0x%08X     +               1\n", size)
	fmt.Fprintf(b, "#      pos        size  status\n")
	at := int64(0)
	for _, r := range m.Bad() {
		line(b, at, r.Off-at, '+')
		line(b, r.Off, r.Len, '-')
		at = r.Off + r.Len
	}
	line(b, at, size-at, '+')
	return b.Flush()
}

func line(w io.Writer, off, n int64, status byte) {
	if n > 0 {
		fmt.Fprintf(w, "0x%08X  0x%08X  %c\n", off, n, status)
	}
}
