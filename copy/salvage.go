package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"imgward/copy/rescue"
)

// salvage gets what can be read out of a failing source: around an error it reads block by block, puts zeroes where
// nothing comes, and keeps a map of those places.
type salvage struct {
	src *handle
	bad *rescue.Map
	log *slog.Logger
}

const (
	// salvageBlock is what one page of the cache needs from the medium: a bad sector spoils no more than that.
	salvageBlock = 4096
	// retries of each bad block after everything else has been read; a drive that gives a sector up at all does so in
	// the first few attempts.
	retries = 3
)

// read fills b as well as it can after reading all of it failed with cause.
func (s *salvage) read(ctx context.Context, b []byte, off int64, cause error) error {
	if !mediumError(cause) {
		return cause
	}
	for len(b) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n := min(len(b), salvageBlock-int(off%salvageBlock))
		if err := s.block(b[:n], off); err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (s *salvage) block(b []byte, off int64) error {
	_, err := s.src.readAt(b, off)
	if err == nil {
		return nil
	}
	if !mediumError(err) {
		return err
	}
	clear(b)
	s.bad.MarkBad(off, int64(len(b)))
	s.log.Warn("cannot be read: the copy gets zeroes there", "offset", off, "bytes", len(b), "err", err)
	return nil
}

// again tries the bad blocks once more and writes to dst what comes out.
func (s *salvage) again(ctx context.Context, dst *handle) error {
	b := make([]byte, salvageBlock)
	for range retries {
		for _, r := range s.bad.Bad() {
			for off := r.Off; off < r.Off+r.Len; off += salvageBlock {
				if err := ctx.Err(); err != nil {
					return context.Cause(ctx)
				}
				if err := s.retryBlock(dst, b[:min(salvageBlock, r.Off+r.Len-off)], off); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// retryBlock reads through the page cache, which direct I/O has not filled with the failed attempt.
func (s *salvage) retryBlock(dst *handle, b []byte, off int64) error {
	n, err := pread(s.src.f, b, off)
	if err != nil || n < len(b) {
		return nil // still bad
	}
	if _, err := dst.writeAt(b, off); err != nil {
		return err
	}
	s.bad.MarkGood(off, int64(n))
	return nil
}

// writeMap leaves the account beside the copy.
func (c *copier) writeMap() error {
	err := replaceFile(c.opts.Map, func(w io.Writer) error { return c.bad.Write(w, c.src.size) })
	if err != nil {
		return fmt.Errorf("write the map of unreadable parts: %w", err)
	}
	return nil
}

// mediumError tells a bad place from a source that is gone altogether.
func mediumError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EREMOTEIO) || errors.Is(err, unix.ENODATA) ||
		errors.Is(err, unix.EILSEQ)
}
