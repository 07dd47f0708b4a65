// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// records is dd's own way: one record after the other, with read, write and lseek as GNU dd 9.1 calls them, for what
// depends on records: pipes and their short reads, padding, case and byte order, appending, going on after errors.
type records struct {
	*Copier
	ctx     context.Context // of run
	in, out *os.File
	ibuf    []byte
	obuf    []byte // collects output records when the sizes differ
	oc      int
	swab    swabber

	sparse     bool // as long as the output can seek
	soughtLast bool
	partial    int // length of the last short read
}

func (r *records) run(ctx context.Context) (err error) {
	r.ctx = ctx
	if err := r.open(); err != nil {
		return err
	}
	defer r.close()
	in, err := sys.NewBuffers(1, roundUp(r.op.IBS))
	if err != nil {
		return fmt.Errorf("allocate a block of %s: %w", move.Bytes(r.op.IBS), err)
	}
	defer in.Free()
	r.ibuf = in.Get(0)[:r.op.IBS]
	if r.op.TwoBuffers {
		out, err := sys.NewBuffers(1, roundUp(r.op.OBS))
		if err != nil {
			return fmt.Errorf("allocate a block of %s: %w", move.Bytes(r.op.OBS), err)
		}
		defer out.Free()
		r.obuf = out.Get(0)[:r.op.OBS]
	}
	r.sparse = r.op.Conv&Sparse != 0
	if err := r.position(ctx); err != nil {
		return err
	}
	if r.op.Limited && r.op.Count.Zero() {
		return nil
	}
	if err := r.loop(ctx); err != nil {
		return err
	}
	return r.flush()
}

// roundUp makes a size of memory that of whole pages.
func roundUp(n int64) int {
	page := int64(os.Getpagesize())
	return int((n + page - 1) / page * page)
}

// open takes descriptors of its own where flags go with a descriptor, and the given ones where the position does.
func (r *records) open() (err error) {
	r.in, r.out = r.Copier.in.File, r.Copier.out.file()
	if r.op.In != "" && r.op.IFlag&Direct != 0 {
		if r.in, err = sys.Reopen(r.in, unix.O_RDONLY|unix.O_DIRECT|openFlags(r.op.IFlag)&^unix.O_NOFOLLOW); err != nil {
			return err
		}
	}
	if r.Copier.out.t != nil {
		flags := unix.O_WRONLY | openFlags(r.op.OFlag)&^unix.O_NOFOLLOW
		if r.op.OFlag&Direct != 0 {
			flags |= unix.O_DIRECT
		}
		r.out, err = sys.Reopen(r.out, flags)
	}
	return err
}

func (r *records) close() {
	if r.in != r.Copier.in.File {
		r.in.Close()
	}
	if r.out != nil && r.out != r.Copier.out.file() {
		r.out.Close()
	}
}

// loop reads records until the count or the input ends.
func (r *records) loop(ctx context.Context) error {
	for {
		b := r.next()
		if b == nil {
			return nil
		}
		if r.op.Conv&Sync != 0 {
			clear(r.ibuf) // what is not read is padding
		}
		n, err := r.read(ctx, b)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			again, err := r.badRead(err)
			if err != nil {
				return err
			}
			if again {
				continue
			}
		case n == 0:
			return nil
		}
		if err := move.Throttle(ctx, r.opts.Limit, n); err != nil {
			return err
		}
		if err := r.record(n); err != nil {
			return err
		}
	}
}

// record counts n bytes that were read, pads and converts them, and sends them on.
func (r *records) record(n int) error {
	r.mu.Lock()
	if n < int(r.op.IBS) {
		r.stats.PartialIn++
		r.partial = n
	} else {
		r.stats.FullIn++
		r.partial = 0
	}
	r.mu.Unlock()
	if r.op.Conv&Sync != 0 {
		n = int(r.op.IBS)
	}
	b := r.ibuf[:n]
	if !r.op.TwoBuffers {
		return r.write(b, n == int(r.op.IBS))
	}
	return r.repack(r.convert(b))
}

// repack fills output records.
func (r *records) repack(b []byte) error {
	for len(b) > 0 {
		n := copy(r.obuf[r.oc:], b)
		b = b[n:]
		if r.oc += n; r.oc < len(r.obuf) {
			return nil
		}
		r.oc = 0
		if err := r.write(r.obuf, true); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the last, short record, and gives a file that ends with zeroes left out its size.
func (r *records) flush() error {
	if err := r.repack(r.swab.rest()); err != nil {
		return err
	}
	if r.oc > 0 {
		if err := r.write(r.obuf[:r.oc], false); err != nil {
			return err
		}
	}
	if !r.soughtLast || !move.IsRegular(r.out) {
		return nil
	}
	at, err := unix.Seek(int(r.out.Fd()), 0, unix.SEEK_CUR)
	if err != nil {
		return err
	}
	st, err := r.out.Stat()
	if err != nil || st.Size() >= at {
		return err
	}
	return move.OutOfSpace(r.out.Truncate(at))
}
