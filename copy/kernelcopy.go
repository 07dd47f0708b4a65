package imgcopy

import (
	"context"
	"time"

	"imgward/copy/extent"
	"imgward/copy/internal/sys"
)

// kernelCopying is copy_file_range(2), where somebody behind the kernel does better than reading and writing: a FUSE view
// hands a whole range to its daemon in one request, which clones it if the backing file system can; NFS 4.2, SMB and
// Ceph copy on the server. On a local disk file system the kernel would only push pages through its cache, one at a
// time and zeroes with them.
var kernelCopying = rung{method: MethodKernel, unfit: noKernelCopy, rehearse: rehearseKernelCopy, climb: kernelCopy}

// Why kernelCopying does not hold.
const (
	kernelCopyFails = "copy_file_range does not work here"
	daemonCopies    = "the daemon behind this mount copies instead of cloning"
)

func noKernelCopy(c *copier) string {
	if why := noClone(c); why != "" {
		return why
	}
	if behind(c.dst.file()) == nobody {
		return "nobody behind the kernel copies"
	}
	return ""
}

// kernelCopy copies extent by extent, for a server that copies bytes would fill the holes.
func kernelCopy(ctx context.Context, c *copier, from int64) (int64, string, error) {
	k := kernelCopier{c: c}
	if behind(c.dst.file()) == daemon {
		yes, known := sys.Reflinks(c.dst.file())
		if known && !yes {
			return from, daemonCopies, nil
		}
		k.doubtful = !known
	}
	s := extent.NewScanner(c.src.f, from, c.src.size)
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

type kernelCopier struct {
	c        *copier
	doubtful bool // it has not been seen yet that the daemon clones
}

// extent copies one extent, as far as it can.
func (k *kernelCopier) extent(ctx context.Context, e extent.Extent) (reached int64, why string, err error) {
	if e.Hole {
		k.c.moved(Step{Off: e.Off, Len: e.Len, Method: MethodHole})
		return e.End(), "", nil
	}
	for off := e.Off; off < e.End(); {
		if ctx.Err() != nil {
			return off, "", context.Cause(ctx)
		}
		n, clones, err := k.request(off, e.End()-off)
		if err != nil || n == 0 {
			return off, kernelCopyFails, ignoreUnsupported(err)
		}
		k.c.moved(Step{Off: off, Len: n, Method: MethodKernel})
		off += n
		if !clones {
			return off, daemonCopies, nil
		}
	}
	return e.End(), "", nil
}

// A daemon behind FUSE whose file system has no reflinks copies through its page cache, which reading and writing beat.
// An imgward view says which it does. Of another, nothing tells but its speed: a clone of 64 MiB takes well under a millisecond, copying it more than
// ten. A wrong guess costs time, and never more than that.
const (
	probeLen = 64 << 20
	probeMax = 8 * time.Millisecond
)

// request makes one call, a short one while it is doubtful whether there are reflinks behind it.
func (k *kernelCopier) request(off, n int64) (done int64, clones bool, err error) {
	if k.doubtful {
		n = min(n, probeLen)
	}
	begun := time.Now()
	if done, err = sys.CopyRange(k.c.dst.file(), k.c.src.f, off, n); err != nil || done == 0 {
		return done, false, err
	}
	if k.doubtful && done >= chunk {
		if time.Since(begun) > probeMax {
			return done, false, nil
		}
		k.doubtful = done < probeLen // too short to be sure
	}
	return done, true, nil
}
