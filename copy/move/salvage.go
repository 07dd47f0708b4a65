// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"imgward/copy/rescue"
)

// Salvage gets what can be read out of a failing source: around an error it reads block by block, puts zeroes where
// nothing comes, and keeps a map of those places.
type Salvage struct {
	Src *Handle
	Bad *rescue.Map
	Log *slog.Logger // told of the first error; Bad has all

	once sync.Once
}

const (
	// salvageBlock is what one page of the cache needs from the medium: a bad sector spoils no more than that.
	salvageBlock = 4096
	// retries of each bad block after everything else has been read; a drive that gives a sector up at all does so in
	// the first few attempts.
	retries = 3
)

// Read fills b as well as it can after reading all of it failed with cause.
func (s *Salvage) Read(ctx context.Context, b []byte, off int64, cause error) error {
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

func (s *Salvage) block(b []byte, off int64) error {
	_, err := s.Src.ReadAt(b, off)
	if err == nil {
		return nil
	}
	if !mediumError(err) {
		return err
	}
	clear(b)
	s.Bad.MarkBad(off, int64(len(b)))
	s.once.Do(func() {
		s.Log.Warn("a part of the source cannot be read; the copy gets zeroes there, and imgcp goes on", "offset", off, "err", err)
	})
	return nil
}

// Again tries the bad blocks once more and writes to dst what comes out.
func (s *Salvage) Again(ctx context.Context, dst *Handle) error {
	b := make([]byte, salvageBlock)
	for range retries {
		for _, r := range s.Bad.Bad() {
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
func (s *Salvage) retryBlock(dst *Handle, b []byte, off int64) error {
	n, err := pread(s.Src.File, b, off)
	if err != nil || n < len(b) {
		return nil // still bad
	}
	if _, err := dst.writeAt(b, off); err != nil {
		return err
	}
	s.Bad.MarkGood(off, int64(n))
	return nil
}

// mediumError distinguishes a bad place from a source that is gone altogether.
func mediumError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EREMOTEIO) || errors.Is(err, unix.ENODATA) ||
		errors.Is(err, unix.EILSEQ)
}
