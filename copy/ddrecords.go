package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
	"imgward/copy/internal/sys"
)

// records is dd's own way: one record after the other, with read, write and lseek as GNU dd 9.1 calls them, for what
// depends on records: pipes and their short reads, padding, case and byte order, appending, going on after errors.
type records struct {
	*DD
	in, out *os.File
	ibuf    []byte
	obuf    []byte // collects output records when the sizes differ
	oc      int
	swab    swabber

	sparse     bool // still hopeful that the output can seek
	soughtLast bool
	partial    int // length of the last short read
	incomplete error
}

func (r *records) run(ctx context.Context) (err error) {
	if err := r.open(); err != nil {
		return err
	}
	defer r.close()
	in, err := sys.NewBuffers(1, roundUp(r.op.IBS))
	if err != nil {
		return fmt.Errorf("allocate a block of %s: %w", Bytes(r.op.IBS), err)
	}
	defer in.Free()
	r.ibuf = in.Get(0)[:r.op.IBS]
	if r.op.TwoBuffers {
		out, err := sys.NewBuffers(1, roundUp(r.op.OBS))
		if err != nil {
			return fmt.Errorf("allocate a block of %s: %w", Bytes(r.op.OBS), err)
		}
		defer out.Free()
		r.obuf = out.Get(0)[:r.op.OBS]
	}
	r.sparse = r.op.Conv&dd.Sparse != 0
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
	r.in, r.out = r.DD.in.f, r.DD.out.file()
	if r.op.In != "" && r.op.IFlag&dd.Direct != 0 {
		if r.in, err = sys.Reopen(r.in, unix.O_RDONLY|unix.O_DIRECT|openFlags(r.op.IFlag)&^unix.O_NOFOLLOW); err != nil {
			return err
		}
	}
	if r.DD.out.t != nil {
		flags := unix.O_WRONLY | openFlags(r.op.OFlag)&^unix.O_NOFOLLOW
		if r.op.OFlag&dd.Direct != 0 {
			flags |= unix.O_DIRECT
		}
		r.out, err = sys.Reopen(r.out, flags)
	}
	return err
}

func (r *records) close() {
	if r.in != r.DD.in.f {
		r.in.Close()
	}
	if r.out != nil && r.out != r.DD.out.file() {
		r.out.Close()
	}
}

// position does skip= and seek=.
func (r *records) position(ctx context.Context) error {
	if !r.op.Skip.Zero() {
		if err := r.skip(ctx); err != nil {
			return err
		}
	}
	if r.op.Seek.Zero() {
		return nil
	}
	if _, err := unix.Seek(int(r.out.Fd()), r.op.Seek.Total(r.op.OBS), unix.SEEK_CUR); err != nil {
		return fmt.Errorf("%s: cannot seek: %w", r.out.Name(), err)
	}
	return nil
}

// skip reads over the records of what cannot seek; a short read counts as a record there.
func (r *records) skip(ctx context.Context) error {
	n := r.op.Skip.Total(r.op.IBS)
	if _, err := unix.Seek(int(r.in.Fd()), n, unix.SEEK_CUR); err == nil {
		if r.DD.in.kind != stream && n > r.DD.in.size {
			r.opts.Log.Warn("cannot skip to specified offset", "input", r.in.Name())
		}
		return nil
	}
	left := r.op.Skip
	for !left.Zero() {
		b := r.ibuf[:left.Bytes]
		if left.Records > 0 {
			b = r.ibuf
			left.Records--
		} else {
			left.Bytes = 0
		}
		n, err := r.read(ctx, b)
		if err != nil {
			return err
		}
		if n == 0 {
			r.opts.Log.Warn("cannot skip to specified offset", "input", r.in.Name())
			return nil
		}
	}
	return nil
}

// loop reads records until the count or the input ends.
func (r *records) loop(ctx context.Context) error {
	for {
		b := r.next()
		if b == nil {
			return nil
		}
		if r.op.Conv&dd.Sync != 0 {
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
		if err := r.record(n); err != nil {
			return err
		}
	}
}

// next is the buffer for the next record, shorter for the last one of a count in bytes; nil after the last.
func (r *records) next() []byte {
	if !r.op.Limited {
		return r.ibuf
	}
	read := r.stats.FullIn + r.stats.PartialIn
	switch {
	case read < r.op.Count.Records:
		return r.ibuf
	case read == r.op.Count.Records && r.op.Count.Bytes > 0:
		return r.ibuf[:r.op.Count.Bytes]
	}
	return nil
}

// read is one read, or with iflag=fullblock as many as it takes; also of /dev/zero and its like, which are never short but
// for a signal, and Go's runtime sends itself some to interrupt goroutines (SIGURG).
func (r *records) read(ctx context.Context, b []byte) (n int, err error) {
	var in io.Reader = readOnce{r.in}
	if r.DD.in.kind == stream {
		in = &interruptible{ctx, r.in}
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if r.op.IFlag&dd.FullBlock != 0 || r.DD.in.isMemory() {
		n, err = io.ReadFull(in, b)
	} else {
		n, err = in.Read(b)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// readOnce is one read(2) at the descriptor's position.
type readOnce struct{ f *os.File }

func (r readOnce) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(r.f.Fd()), p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: r.f.Name(), Err: err}
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// badRead goes on after an error if conv=noerror asks for that: past the bad block, and with conv=sync with a block of
// zeroes in its place. again: there is nothing to write.
func (r *records) badRead(cause error) (again bool, err error) {
	if r.op.Conv&dd.NoError == 0 {
		return false, cause
	}
	r.opts.Log.Warn("cannot be read", "input", r.in.Name(), "err", cause)
	r.incomplete = fmt.Errorf("%w: %w", ErrIncomplete, cause)
	if _, err := unix.Seek(int(r.in.Fd()), r.op.IBS-int64(r.partial), unix.SEEK_CUR); err != nil {
		return false, fmt.Errorf("go on after a read error: %w", err)
	}
	return r.op.Conv&dd.Sync == 0 || r.partial > 0, nil
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
	if r.op.Conv&dd.Sync != 0 {
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
	if !r.soughtLast || !isRegular(r.out) {
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
	return outOfSpace(r.out.Truncate(at))
}
