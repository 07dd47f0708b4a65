// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// zeroes reports how many bytes of /dev/zero are to become an image.
func (d *Copier) zeroes() (n int64, ok bool) {
	const zero = 5 // Documentation/admin-guide/devices.txt
	if !d.in.IsMemory() || unix.Minor(d.in.Stat.Rdev) != zero || !d.op.Limited || d.out.t == nil || d.op.Conv&Sync != 0 || d.op.OFlag&Append != 0 {
		return 0, false
	}
	n = d.op.Count.Total(d.op.IBS)
	return n, n <= math.MaxInt64-d.op.Seek.Total(d.op.OBS)
}

// allocates is how many bytes the copy will take up, where that is known: of zeroes, and of what an existing file is truncated
// for. A new one that does not fit is given up in the end, and may yet be compressed.
func (d *Copier) allocates() (n int64, ok bool) {
	if d.op.Conv&Sparse != 0 {
		return 0, false
	}
	if n, ok = d.zeroes(); ok {
		return n, true
	}
	return d.length(), d.pumps() && d.out.regular() && !d.out.isNew && truncation(d.op) >= 0
}

// length is how much of the input is copied.
func (d *Copier) length() int64 {
	n := max(0, d.in.Size-d.op.Skip.Total(d.op.IBS))
	if d.op.Limited {
		n = min(n, d.op.Count.Total(d.op.IBS))
	}
	return n
}

// makeZeroes reserves blocks instead of writing them. conv=sparse reserves nothing, and leaves what is there alone, as dd
// does by seeking over it.
func (d *Copier) makeZeroes(ctx context.Context, n int64) error {
	off := d.op.Seek.Total(d.op.OBS)
	z := &move.Zeroer{H: move.NewHandle(d.out.file(), unix.O_RDWR, d.opts.Direct == imgcopy.Always), Keep: true}
	defer z.H.Close()
	if d.op.Conv&Sparse == 0 {
		for at := off; at < off+n; at += move.ZeroStep {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := d.zeroRange(z, at, min(move.ZeroStep, off+n-at)); err != nil {
				return move.OutOfSpace(err)
			}
		}
	}
	d.count(d.op.Counted(n))
	return d.extend(off, n)
}

func (d *Copier) zeroRange(z *move.Zeroer, off, n int64) error {
	if d.out.isNew {
		if err := sys.Allocate(z.H.File, off, n); err == nil || !sys.Unsupported(err) {
			return err
		}
	}
	_, err := z.Zero(off, n)
	return err
}

// extend gives a file the size that it has after dd wrote n bytes at off.
func (d *Copier) extend(off, n int64) error {
	if !d.out.regular() || n == 0 {
		return nil
	}
	st, err := d.out.file().Stat()
	if err != nil || st.Size() >= off+n {
		return err
	}
	return move.OutOfSpace(d.out.file().Truncate(off + n))
}

func (d *Copier) count(s Stats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats = s
}

// pumps reports whether the pipelined copy has dd's result: files or devices by name, nothing that depends on the record
// that a byte is in.
func (d *Copier) pumps() bool {
	const byRecord = Sync | Swab | LCase | UCase | NoError
	switch {
	case d.op.In == "" || d.in.Kind == source.Stream || d.out.t == nil:
		return false
	case d.op.Conv&byRecord != 0 || d.op.OFlag&(Append|DSync|SyncIO) != 0:
		return false
	case !d.out.isNew && d.op.Conv&(NoTrunc|Sparse) == NoTrunc|Sparse:
		return false // a record of zeroes leaves what is there, a part of one does not
	}
	return !d.sameFile()
}

// sameFile is a file copied into itself, where the order of reads and writes shows.
func (d *Copier) sameFile() bool {
	f := d.out.file()
	if f == nil { // new, and not made yet
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && dest.SameInode(&st, &d.in.Stat)
}

func (d *Copier) pump(ctx context.Context) error {
	skip, seek := d.op.Skip.Total(d.op.IBS), d.op.Seek.Total(d.op.OBS)
	n := d.length()
	if n == 0 {
		return nil
	}
	d.mu.Lock()
	d.whole = true
	d.mu.Unlock()
	d.opts.Progress.Data.Store(n)
	p := move.NewPump(d.in.File, d.out.file(), move.PumpOptions{
		DirectReads:  d.op.IFlag&Direct != 0 || d.opts.Sync,
		DirectWrites: d.opts.Direct == imgcopy.Always || d.opts.Sync,
		Durable:      d.opts.Sync,
		Blank:        d.blankFrom(seek, n),
		KeepZeroes:   d.opts.KeepZeroes, KeepBlocks: d.opts.KeepZeroes,
		Limit: d.opts.Limit, Requests: d.opts.Requests, Size: d.in.Size, Progress: d.opts.Progress,
	})
	defer p.Close()
	p.Shift = seek - skip
	if err := p.Run(ctx, skip, skip+n); err != nil {
		return err
	}
	return d.extend(seek, n)
}

// blankFrom reports whether [off, off+n) of the output reads as zeroes. dd without conv=sparse writes zeroes: their
// blocks are reserved at least, where the file system can.
func (d *Copier) blankFrom(off, n int64) bool {
	f := d.out.file()
	st, err := f.Stat()
	if err != nil || !d.out.regular() || st.Size() > off {
		return false
	}
	if d.opts.KeepZeroes {
		if err := sys.Allocate(f, off, n); err != nil && !sys.Unsupported(err) {
			return false // no space; writing says the same with a better message
		}
	}
	return true
}
