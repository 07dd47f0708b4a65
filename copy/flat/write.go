// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/time/rate"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// Options are how a disk is written.
type Options struct {
	Share    bool          // blocks where the file system can (reflinks)
	Limit    *rate.Limiter // nil: as fast as it goes
	Progress *move.Progress
}

// Write writes the disk to dst, which is empty and new: zeroes are left out.
func (im *Image) Write(ctx context.Context, dst *os.File, o Options) error {
	if err := dst.Truncate(im.Size); err != nil {
		return move.OutOfSpace(err)
	}
	return im.each(ctx, func(s segment) error {
		if s.kind == zeroes {
			o.Progress.Holes.Add(s.n)
			return nil
		}
		if o.Share && s.kind == data && s.share(dst) {
			o.Progress.Cloned.Add(s.n)
			return nil
		}
		return s.read(func(off int64, b []byte) error {
			if err := move.Throttle(ctx, o.Limit, len(b)); err != nil {
				return err
			}
			o.Progress.Read.Add(int64(len(b)))
			if move.IsZero(b) {
				o.Progress.Zeroes.Add(int64(len(b)))
				return nil
			}
			n, err := dst.WriteAt(b, off)
			o.Progress.Written.Add(int64(n))
			return move.OutOfSpace(err)
		})
	})
}

// Compare reads dst back from the medium. The error is ErrDiffers if it is not what the image holds.
func (im *Image) Compare(ctx context.Context, dst *os.File, p *move.Progress) error {
	if err := dst.Sync(); err != nil {
		return move.OutOfSpace(err)
	}
	sys.Evict(dst, 0, 0)
	h := move.NewHandle(dst, os.O_RDONLY, true)
	defer h.Close()
	h.Medium = true
	back := make([]byte, move.Chunk, 2*move.Chunk)
	return im.each(ctx, func(s segment) error {
		if s.kind == zeroes {
			return nil // a new file's holes: nothing was written there
		}
		return s.read(func(off int64, b []byte) error {
			if _, err := h.ReadAt(back[:len(b)], off); err != nil {
				return err
			}
			p.Checked.Add(int64(len(b)))
			if !bytes.Equal(back[:len(b)], b) {
				return ErrDiffers
			}
			return nil
		})
	})
}

// share has dst share the segment's blocks, and reports whether it does.
func (s segment) share(dst *os.File) bool {
	return sys.ShareRange(dst, s.off, s.from.file, s.at, s.n) == nil
}

// read passes on what the segment holds, a request at a time.
func (s segment) read(visit func(off int64, b []byte) error) error {
	if s.kind == compressed {
		b, err := s.from.q.inflate(s.deep)
		if err != nil {
			return err
		}
		return visit(s.off, b[s.at:][:s.n])
	}
	b := make([]byte, min(s.n, move.Chunk))
	for done := int64(0); done < s.n; {
		part := b[:min(s.n-done, move.Chunk)]
		n, err := s.from.file.ReadAt(part, s.at+done)
		if n < len(part) && !errors.Is(err, io.EOF) {
			return err
		}
		clear(part[n:]) // an image may end in mid-cluster
		if err := visit(s.off+done, part); err != nil {
			return err
		}
		done += int64(len(part))
	}
	return nil
}
