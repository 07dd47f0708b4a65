// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// write writes one record, or with conv=sparse seeks over it if it is zeroes.
func (r *records) write(b []byte, full bool) error {
	if r.op.OFlag&Direct != 0 && len(b) < int(r.op.OBS) {
		r.dropDirect()
	}
	r.soughtLast = false
	written := 0
	for written < len(b) {
		n, err := r.writeOnce(b, written)
		written += n
		if err != nil {
			r.wrote(written, false, false)
			return fmt.Errorf("write to %s: %w", r.out.Name(), move.OutOfSpace(err))
		}
	}
	r.wrote(written, full, !full)
	return nil
}

func (r *records) writeOnce(b []byte, from int) (int, error) {
	if r.sparse && move.IsZero(b) {
		if _, err := unix.Seek(int(r.out.Fd()), int64(len(b)), unix.SEEK_CUR); err == nil {
			r.soughtLast = true
			return len(b) - from, nil
		}
		r.sparse = false
	}
	if r.Copier.out.t == nil && sys.MayWait(r.out, len(b)-from) {
		return sys.Wait(r.ctx, func() (int, error) { return writeOnce(r.out, b[from:]) })
	}
	return writeOnce(r.out, b[from:])
}

// writeOnce is one write(2) at the descriptor's position.
func writeOnce(f *os.File, b []byte) (int, error) {
	for {
		n, err := unix.Write(int(f.Fd()), b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, &os.PathError{Op: "write", Path: f.Name(), Err: err}
		case n == 0:
			return 0, io.ErrShortWrite
		}
		return n, nil
	}
}

func (r *records) wrote(n int, full, partial bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Bytes += int64(n)
	if full {
		r.stats.FullOut++
	}
	if partial {
		r.stats.PartialOut++
	}
}

// dropDirect: the last record of a file is shorter than direct I/O allows.
func (r *records) dropDirect() {
	flags, err := unix.FcntlInt(r.out.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, _ = unix.FcntlInt(r.out.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT)
	}
}
