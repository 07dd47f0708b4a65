// SPDX-License-Identifier: Apache-2.0

package move

import (
	"bytes"
	"os"
	"sync/atomic"

	"imgward/copy/internal/sys"
)

// zeroBlock is the unit in which zeroes are looked for: the block size of the file systems that hold images. Smaller
// runs would save nothing.
const zeroBlock = 4096

// Zeroes is only ever read; untouched memory of the program, it costs one shared page.
var Zeroes [Chunk]byte

// nextRun returns the length of the run at the start of p and whether it is all zeroes. A run ends where blocks of zeroes
// and data meet; the last block may be short.
func nextRun(p []byte) (n int, zero bool) {
	zero = IsZero(p[:min(len(p), zeroBlock)])
	for n = min(len(p), zeroBlock); n < len(p); {
		block := p[n:min(len(p), n+zeroBlock)]
		if IsZero(block) != zero {
			break
		}
		n += len(block)
	}
	return n, zero
}

// IsZero looks at the first word before it compares: most data shows itself there.
func IsZero(p []byte) bool {
	if len(p) >= 8 && (p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7]) != 0 {
		return false
	}
	for ; len(p) > Chunk; p = p[Chunk:] {
		if !bytes.Equal(p[:Chunk], Zeroes[:]) {
			return false
		}
	}
	return bytes.Equal(p, Zeroes[:len(p)])
}

// Zeroer makes ranges of a file or device that is not blank read as zeroes, in the cheapest way that it can: unmapping,
// zeroing without data, writing zeroes. It remembers what did not work.
type Zeroer struct {
	H                *Handle
	Keep             bool // blocks stay allocated: no unmapping
	noPunch, noRange atomic.Bool
}

// Zero returns the method that worked.
func (z *Zeroer) Zero(off, n int64) (Method, error) {
	f := z.H.File
	for _, way := range []struct {
		method Method
		never  *atomic.Bool
		call   func(*os.File, int64, int64) error
	}{{MethodPunch, &z.noPunch, sys.Punch}, {MethodZero, &z.noRange, sys.ZeroRange}} {
		if z.Keep && way.method == MethodPunch || way.never.Load() || off%512 != 0 || n%512 != 0 {
			continue
		}
		err := way.call(f, off, n)
		if err == nil || !sys.Unsupported(err) {
			return way.method, OutOfSpace(err)
		}
		way.never.Store(true)
	}
	return MethodBuffer, z.write(off, n)
}

func (z *Zeroer) write(off, n int64) error {
	for n > 0 {
		some := min(n, Chunk)
		if _, err := z.H.writeAt(Zeroes[:some], off); err != nil {
			return err
		}
		off, n = off+some, n-some
	}
	return nil
}
