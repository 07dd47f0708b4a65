// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"math/rand/v2"
	"slices"

	"imgward/copy/extent"
	"imgward/copy/move"
)

// need is what the target will have to allocate at least: nothing if the source's blocks can be shared, which is tried on
// one; else its data. A device calls everything data, and a file may hold zeroes that were written: that is looked at in
// samples, since the copy leaves them out.
func (c *copier) need() (int64, error) {
	if c.opts.Preallocate {
		return c.src.Size, nil
	}
	undo, err := c.rehearse()
	if err != nil {
		return 0, err
	}
	shares := noClone(c) == "" && c.inKernel().TryClone(0) == ""
	undo()
	if shares {
		return 0, nil
	}
	c.tight = true
	v, err := extent.Take(c.src.File, c.src.Size, 1<<30)
	if err != nil || c.opts.KeepZeroes {
		return v.Data, err
	}
	return c.notZero(v.Data)
}

const (
	probes    = 256
	probeSize = 4096
	// With that many probes a share is known to a tenth but for one case in a thousand. Running out of space ends a copy
	// as cleanly as being refused does; only later.
	doubt = 0.1
)

// notZero estimates how much of the data is no zeroes, on the low side.
func (c *copier) notZero(data int64) (int64, error) {
	var at []int64 // as if all data lay side by side
	for range probes {
		at = append(at, rand.Int64N(max(1, data)))
	}
	slices.Sort(at)
	b := make([]byte, probeSize)
	before, zeroes := int64(0), 0
	for s := extent.NewScanner(c.src.File, 0, c.src.Size); len(at) > 0; {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return data, err
		}
		if e.Hole {
			continue
		}
		for ; len(at) > 0 && at[0] < before+e.Len; at = at[1:] {
			off := (e.Off + at[0] - before) / probeSize * probeSize
			n, err := c.src.File.ReadAt(b, off)
			if n > 0 && move.IsZero(b[:n]) {
				zeroes++
			} else if n == 0 && err != nil {
				return data, nil // reading it is the copy's affair
			}
		}
		before += e.Len
	}
	if zeroes == 0 {
		return data, nil
	}
	share := float64(probes-zeroes)/probes - doubt
	return int64(max(0, share) * float64(data)), nil
}
