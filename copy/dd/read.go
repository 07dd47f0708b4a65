// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
)

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
		if r.Copier.in.Kind != source.Stream && n > r.Copier.in.Size {
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
	if r.Copier.in.Kind == source.Stream && r.op.IFlag&NonBlock == 0 {
		in = source.NewReader(ctx, r.in)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if r.op.IFlag&FullBlock != 0 || r.Copier.in.IsMemory() {
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

// badRead goes on after an error if conv=noerror asks for that, and calls it no failure: past the bad block, or reading on
// from what cannot seek, and with conv=sync with a block of zeroes in its place. again: there is nothing to write.
func (r *records) badRead(cause error) (again bool, err error) {
	if r.op.Conv&NoError == 0 {
		return false, cause
	}
	if r.op.Status != None {
		r.opts.Log.Warn("cannot be read", "input", r.in.Name(), "err", cause)
	}
	_, err = unix.Seek(int(r.in.Fd()), r.op.IBS-int64(r.partial), unix.SEEK_CUR)
	if err != nil && !errors.Is(err, unix.ESPIPE) {
		return false, fmt.Errorf("go on after a read error: %w", err)
	}
	return r.op.Conv&Sync == 0 || r.partial > 0, nil
}
