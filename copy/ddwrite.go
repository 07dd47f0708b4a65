package imgcopy

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
)

// write writes one record, or with conv=sparse seeks over it if it is zeroes.
func (r *records) write(b []byte, full bool) error {
	if r.op.OFlag&dd.Direct != 0 && len(b) < int(r.op.OBS) {
		r.dropDirect()
	}
	r.soughtLast = false
	written := 0
	for written < len(b) {
		n, err := r.writeOnce(b, written)
		written += n
		if err != nil {
			r.wrote(written, false, false)
			return fmt.Errorf("write to %s: %w", r.out.Name(), outOfSpace(err))
		}
	}
	r.wrote(written, full, !full)
	return nil
}

func (r *records) writeOnce(b []byte, from int) (int, error) {
	if r.sparse && allZero(b) {
		if _, err := unix.Seek(int(r.out.Fd()), int64(len(b)), unix.SEEK_CUR); err == nil {
			r.soughtLast = true
			return len(b) - from, nil
		}
		r.sparse = false
	}
	for {
		n, err := unix.Write(int(r.out.Fd()), b[from:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, &os.PathError{Op: "write", Path: r.out.Name(), Err: err}
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

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), chunk)
		if !isZero(b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// convert does conv=lcase, ucase and swab, in place but for swab.
func (r *records) convert(b []byte) []byte {
	switch {
	case r.op.Conv&dd.LCase != 0:
		mapBytes(b, 'A', 'Z', 'a'-'A')
	case r.op.Conv&dd.UCase != 0:
		mapBytes(b, 'a', 'z', 'A'-'a'+256)
	}
	if r.op.Conv&dd.Swab != 0 {
		return r.swab.swap(b)
	}
	return b
}

// mapBytes adds to those bytes that lie in a range.
func mapBytes(b []byte, from, to byte, add int) {
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = byte(int(c) + add)
		}
	}
}

// swabber swaps pairs of bytes; a pair may begin in one record and end in the next.
type swabber struct {
	held []byte // at most one
	out  []byte
}

func (s *swabber) swap(b []byte) []byte {
	s.out = append(append(s.out[:0], s.held...), b...)
	even := len(s.out) &^ 1
	for i := 0; i < even; i += 2 {
		s.out[i], s.out[i+1] = s.out[i+1], s.out[i]
	}
	s.held = append(s.held[:0], s.out[even:]...)
	return s.out[:even]
}

// rest is the last byte of an odd number, as it is.
func (s *swabber) rest() []byte {
	b := s.held
	s.held = nil
	return b
}
