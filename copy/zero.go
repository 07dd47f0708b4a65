package imgcopy

import (
	"bytes"
	"os"
	"sync/atomic"

	"imgward/copy/internal/sys"
)

// zeroBlock is the unit in which zeroes are looked for: the block size of the file systems that hold images. Smaller
// runs would save nothing.
const zeroBlock = 4096

// zeroes is only ever read; untouched memory of the program, it costs one shared page.
var zeroes [chunk]byte

// nextRun returns the length of the run at the start of p and whether it is all zeroes. A run ends where blocks of zeroes
// and data meet; the last block may be short.
func nextRun(p []byte) (n int, zero bool) {
	zero = isZero(p[:min(len(p), zeroBlock)])
	for n = min(len(p), zeroBlock); n < len(p); {
		block := p[n:min(len(p), n+zeroBlock)]
		if isZero(block) != zero {
			break
		}
		n += len(block)
	}
	return n, zero
}

// isZero looks at the first word before it compares the block: most data shows itself there.
func isZero(p []byte) bool {
	if len(p) >= 8 && (p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7]) != 0 {
		return false
	}
	return bytes.Equal(p, zeroes[:len(p)])
}

// zeroer makes ranges of a file or device that is not blank read as zeroes, in the cheapest way that it can: unmapping,
// zeroing without data, writing zeroes. It remembers what did not work.
type zeroer struct {
	h                *handle
	keep             bool // blocks stay allocated: no unmapping
	noPunch, noRange atomic.Bool
}

// zero returns the method that worked.
func (z *zeroer) zero(off, n int64) (Method, error) {
	f := z.h.f
	for _, way := range []struct {
		method Method
		never  *atomic.Bool
		call   func(*os.File, int64, int64) error
	}{{MethodPunch, &z.noPunch, sys.Punch}, {MethodZero, &z.noRange, sys.ZeroRange}} {
		if z.keep && way.method == MethodPunch || way.never.Load() || off%512 != 0 || n%512 != 0 {
			continue
		}
		err := way.call(f, off, n)
		if err == nil || !sys.Unsupported(err) {
			return way.method, outOfSpace(err)
		}
		way.never.Store(true)
	}
	return MethodBuffer, z.write(off, n)
}

func (z *zeroer) write(off, n int64) error {
	for n > 0 {
		some := min(n, chunk)
		if _, err := z.h.writeAt(zeroes[:some], off); err != nil {
			return err
		}
		off, n = off+some, n-some
	}
	return nil
}
