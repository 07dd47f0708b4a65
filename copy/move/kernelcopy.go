// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"os"
	"time"

	"golang.org/x/time/rate"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// Why copyRanges does not get to the end.
const (
	kernelCopyFails = "copy_file_range does not work here"
	daemonCopies    = "the daemon behind this mount copies instead of cloning"
)

// InKernel moves an image in the kernel's ways: clone and copy_file_range(2).
type InKernel struct {
	Dst, Src *os.File
	Size     int64
	Moved    func(Step)    // told of every step, in order
	Limit    *rate.Limiter // nil: as fast as it goes
	clones   bool          // the daemon has said that it clones
	doubtful bool          // it has not been seen yet that the daemon clones
}

// CopyRanges is copy_file_range(2) from an offset on, where somebody behind the kernel does better than reading and
// writing: a FUSE view hands a whole range to its daemon in one request, which clones it if the backing file system can;
// NFS 4.2, SMB and Ceph copy on the server. On a local disk file system the kernel would only push pages through its
// cache, one at a time and zeroes with them. It goes extent by extent, for a server that copies bytes would fill the
// holes.
func (k *InKernel) CopyRanges(ctx context.Context, from int64) (reached int64, why string, err error) {
	if why := k.askDaemon(); why != "" {
		return from, why, nil
	}
	s := extent.NewScanner(k.Src, from, k.Size)
	for {
		e, ok, err := s.Next()
		if err != nil || !ok {
			return from, "", err
		}
		var why string
		if from, why, err = k.extent(ctx, e); from < e.End() {
			return from, why, err
		}
	}
}

// askDaemon asks a daemon behind the destination whether it clones, and says why not to go on.
func (k *InKernel) askDaemon() (why string) {
	if !OnFUSE(k.Dst) {
		return ""
	}
	yes, known := sys.Reflinks(k.Dst)
	k.doubtful, k.clones = !known, known
	if known && !yes {
		return daemonCopies
	}
	return ""
}

// extent copies one extent, as far as it can.
func (k *InKernel) extent(ctx context.Context, e extent.Extent) (reached int64, why string, err error) {
	if e.Hole {
		k.Moved(Step{Off: e.Off, Len: e.Len, Method: MethodHole})
		return e.End(), "", nil
	}
	for off := e.Off; off < e.End(); {
		if ctx.Err() != nil {
			return off, "", context.Cause(ctx)
		}
		length, err := k.throttle(ctx, e.End()-off)
		if err != nil {
			return off, "", err
		}
		n, clones, err := k.request(off, length)
		if err != nil || n == 0 {
			return off, kernelCopyFails, ignoreUnsupported(err)
		}
		k.Moved(Step{Off: off, Len: n, Method: MethodKernel})
		off += n
		if !clones {
			return off, daemonCopies, nil
		}
	}
	return e.End(), "", nil
}

// throttle says how much of n bytes may be asked for now. Shared blocks are no bytes; whether a server shares, or another
// daemon, it does not say.
func (k *InKernel) throttle(ctx context.Context, n int64) (int64, error) {
	if k.Limit == nil || k.clones {
		return n, nil
	}
	n = min(n, Chunk)
	return n, Throttle(ctx, k.Limit, int(n))
}

// A daemon behind FUSE whose file system has no reflinks copies through its page cache, which reading and writing beat.
// An imgward view says which it does. Of another, only its speed shows it: a clone of 64 MiB takes well under a
// millisecond, copying it more than ten. A wrong guess costs time, and never more than that.
const (
	probeLen = 64 << 20
	probeMax = 8 * time.Millisecond
)

// request makes one call, a short one while it is doubtful whether there are reflinks behind it.
func (k *InKernel) request(off, n int64) (done int64, clones bool, err error) {
	if k.doubtful {
		n = min(n, probeLen)
	}
	begun := time.Now()
	if done, err = sys.CopyRange(k.Dst, k.Src, off, n); err != nil || done == 0 {
		return done, false, err
	}
	if k.doubtful && done >= Chunk {
		if time.Since(begun) > probeMax {
			return done, false, nil
		}
		k.doubtful = done < probeLen // too short to be sure
	}
	return done, true, nil
}

// TryCopyRange copies the first data from an offset on, as much of it as it takes to see whether it is cloned.
func (k *InKernel) TryCopyRange(from int64) string {
	if why := k.askDaemon(); why != "" {
		return why
	}
	at, ok, err := sys.NextData(k.Src, from)
	if err != nil || !ok {
		return ""
	}
	n, clones, err := k.request(at, min(probeLen, k.Size-at))
	switch {
	case err != nil || n == 0:
		return kernelCopyFails
	case !clones:
		return daemonCopies
	}
	return ""
}
