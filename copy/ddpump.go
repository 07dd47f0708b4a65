package imgcopy

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
	"imgward/copy/internal/sys"
)

// zeroes reports how many bytes of /dev/zero are to become an image.
func (d *DD) zeroes() (n int64, ok bool) {
	const zero = 5 // Documentation/admin-guide/devices.txt
	if !d.in.isMemory() || unix.Minor(d.in.stat.Rdev) != zero || !d.op.Limited || d.out.t == nil || d.op.Conv&dd.Sync != 0 || d.op.OFlag&dd.Append != 0 {
		return 0, false
	}
	n = d.op.Count.Total(d.op.IBS)
	return n, n <= math.MaxInt64-d.op.Seek.Total(d.op.OBS)
}

// isMemory tells the character devices that are memory: /dev/zero, /dev/urandom, /dev/null.
func (s *source) isMemory() bool {
	const memory = 1
	return s.stat.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(s.stat.Rdev) == memory
}

// makeZeroes reserves blocks instead of writing them. conv=sparse reserves nothing, and leaves what is there alone, as dd
// does by seeking over it.
func (d *DD) makeZeroes(ctx context.Context, n int64) error {
	off := d.op.Seek.Total(d.op.OBS)
	z := &zeroer{h: newHandle(d.out.file(), unix.O_RDWR, d.opts.Direct == Always), keep: true}
	defer z.h.close()
	if d.op.Conv&dd.Sparse == 0 {
		for at := off; at < off+n; at += zeroStep {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := d.zeroRange(z, at, min(zeroStep, off+n-at)); err != nil {
				return outOfSpace(err)
			}
		}
	}
	d.count(d.op.Counted(n))
	return d.extend(off, n)
}

func (d *DD) zeroRange(z *zeroer, off, n int64) error {
	if d.out.isNew {
		if err := sys.Allocate(z.h.f, off, n); err == nil || !sys.Unsupported(err) {
			return err
		}
	}
	_, err := z.zero(off, n)
	return err
}

// extend gives a file the size that it has after dd wrote n bytes at off.
func (d *DD) extend(off, n int64) error {
	if !d.out.regular() || n == 0 {
		return nil
	}
	st, err := d.out.file().Stat()
	if err != nil || st.Size() >= off+n {
		return err
	}
	return outOfSpace(d.out.file().Truncate(off + n))
}

func (d *DD) count(s dd.Stats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats = s
}

// pumps reports whether the pipelined copy has dd's result: files or devices by name, nothing that depends on the record
// that a byte is in.
func (d *DD) pumps() bool {
	const byRecord = dd.Sync | dd.Swab | dd.LCase | dd.UCase | dd.NoError
	switch {
	case d.op.In == "" || d.in.kind == stream || d.out.t == nil:
		return false
	case d.op.Conv&byRecord != 0 || d.op.OFlag&(dd.Append|dd.DSync|dd.SyncIO) != 0:
		return false
	case !d.out.isNew && d.op.Conv&(dd.NoTrunc|dd.Sparse) == dd.NoTrunc|dd.Sparse:
		return false // a record of zeroes leaves what is there, a part of one does not
	}
	return !d.sameFile()
}

// sameFile is a file copied into itself, where the order of reads and writes shows.
func (d *DD) sameFile() bool {
	f := d.out.file()
	if f == nil { // new, and not made yet
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && sameInode(&st, &d.in.stat)
}

func (d *DD) pump(ctx context.Context) error {
	skip, seek := d.op.Skip.Total(d.op.IBS), d.op.Seek.Total(d.op.OBS)
	n := max(0, d.in.size-skip)
	if d.op.Limited {
		n = min(n, d.op.Count.Total(d.op.IBS))
	}
	if n == 0 {
		return nil
	}
	d.mu.Lock()
	d.whole = true
	d.mu.Unlock()
	d.opts.Progress.Data.Store(n)
	dst := newHandle(d.out.file(), unix.O_RDWR, d.opts.Direct == Always || d.opts.Sync)
	p := &pump{
		src: newHandle(d.in.f, unix.O_RDONLY, d.op.IFlag&dd.Direct != 0 || d.opts.Sync), dst: dst,
		shift: seek - skip, blank: d.blankFrom(seek, n), opts: d.opts, prog: d.opts.Progress, requests: d.opts.Requests,
		zero: &zeroer{h: dst, keep: d.opts.KeepZeroes}, order: newSequence(skip), method: MethodBuffer,
		done: func() error { return nil },
	}
	defer p.close()
	if dst.direct == nil && mostlyCached(p.src, d.in.size) {
		p.requests = min(p.requests, cacheToCache)
	}
	if d.opts.Sync {
		dst.trail = &trail{f: d.out.file()}
	}
	if err := p.run(ctx, skip, skip+n); err != nil {
		return err
	}
	return d.extend(seek, n)
}

// blankFrom reports whether [off, off+n) of the output reads as zeroes. dd without conv=sparse writes zeroes: their
// blocks are reserved at least, where the file system can.
func (d *DD) blankFrom(off, n int64) bool {
	f := d.out.file()
	st, err := f.Stat()
	if err != nil || !d.out.regular() || st.Size() > off {
		return false
	}
	if d.opts.KeepZeroes {
		if err := sys.Allocate(f, off, n); err != nil && !sys.Unsupported(err) {
			return false // no space; writing tells the same with a better message
		}
	}
	return true
}
