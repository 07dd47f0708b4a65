// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/internal/sys"
	"imgward/copy/manifest"
	"imgward/copy/move"
	"imgward/copy/rescue"
)

// wantSums begins to hash if the copy is to be verified or described.
func (c *copier) wantSums(size int64) {
	switch {
	case c.opts.Manifest != "" || c.opts.Digest:
		c.sums = digest.New(digest.BLAKE3, size) // it serves verification as well
	case c.opts.Verify:
		c.sums = digest.New(digest.XXH3, size)
	}
	c.hashed = size // for the time being nothing has been
}

// hashRest reads what the transfer did not hash: what was cloned, copied by a server or by an earlier run, or read at a
// second try.
func (c *copier) hashRest(ctx context.Context) error {
	if c.hashed == 0 {
		return nil
	}
	src := move.NewHandle(c.src.File, unix.O_RDONLY, c.opts.Direct != Never)
	defer src.Close()
	read := countedReader(src, &c.prog.Checked)
	if c.opts.OnError != Stop { // what cannot be read counts as the zeroes that the copy has there
		s := &move.Salvage{Src: src, Bad: new(rescue.Map), Log: slog.New(slog.DiscardHandler)}
		whole := read
		read = func(ctx context.Context, b []byte, off int64) error {
			if err := whole(ctx, b, off); err != nil {
				return s.Read(ctx, b, off, err)
			}
			return nil
		}
	}
	return hash(ctx, src, c.sums, move.Span{Off: 0, N: c.hashed}, c.opts, read)
}

// reader fills b from off.
type reader func(ctx context.Context, b []byte, off int64) error

// countedReader reads from h and adds to a counter.
func countedReader(h *move.Handle, count *atomic.Int64) reader {
	return func(_ context.Context, b []byte, off int64) error {
		n, err := h.ReadAt(b, off)
		count.Add(int64(n))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%s ends at byte %d", h.File.Name(), off+int64(n))
		}
		return err
	}
}

// hash feeds a range of h, which begins where a leaf does, to the tree.
func hash(ctx context.Context, h *move.Handle, t *digest.Tree, r move.Span, o *Options, read reader) error {
	s := move.Sweep{
		Src: h, Requests: o.Requests, Limit: o.Limit, Read: read,
		Visit: func(_ context.Context, p move.Piece, b []byte) error {
			if b == nil {
				t.Hole(p.Off, p.N)
			} else {
				t.Data(p.Off, b)
			}
			return nil
		},
	}
	return s.Run(ctx, r.Off, r.End())
}

// verify reads the copy back from the medium and compares it with what was read from the source. A block that differs
// is written once more: a bit that fell over on its way is cured by that, a bad medium or bad memory is not.
func (c *copier) verify(ctx context.Context) error {
	c.prog.SetPhase(move.PhaseVerify)
	bad, err := c.differing(ctx, []move.Span{{Off: 0, N: c.src.Size}})
	if err != nil || len(bad) == 0 {
		return err
	}
	for _, b := range bad {
		c.opts.Log.Warn("the copy differs from the source; imgcp writes this part again", "offset", b.Off, "bytes", b.N)
		if err := c.repair(ctx, b); err != nil {
			return err
		}
	}
	again, err := c.differing(ctx, bad)
	if err != nil {
		return err
	}
	if len(again) > 0 {
		return fmt.Errorf("%w: %s at byte %d of the copy is not what was written, for the second time; "+
			"do not trust this medium (or this memory)", ErrVerify, move.Bytes(again[0].N), again[0].Off)
	}
	c.repaired = len(bad)
	return nil
}

// differing reads runs of whole blocks back and returns the blocks that are not as they should be.
func (c *copier) differing(ctx context.Context, runs []move.Span) (bad []move.Span, err error) {
	h, err := fromMedium(c.dst.File())
	if err != nil {
		return nil, err
	}
	defer h.Close()
	got := digest.New(c.sums.Algorithm(), c.src.Size)
	for _, r := range runs {
		if err := hash(ctx, h, got, r, c.opts, countedReader(h, &c.prog.Checked)); err != nil {
			return nil, fmt.Errorf("read the copy back: %w", err)
		}
	}
	want, have := c.sums.Blocks(), got.Blocks()
	for _, r := range runs {
		for off := r.Off; off < r.End(); off += digest.Block {
			if i := off / digest.Block; want[i] != have[i] {
				bad = append(bad, move.Span{Off: off, N: min(digest.Block, c.src.Size-off)})
			}
		}
	}
	return bad, nil
}

// fromMedium opens f for reads that no cache answers: with direct I/O, or where there is none with the cache emptied.
func fromMedium(f *os.File) (*move.Handle, error) {
	if err := f.Sync(); err != nil {
		return nil, move.OutOfSpace(err)
	}
	h := move.NewHandle(f, unix.O_RDONLY, true)
	h.Medium = true
	sys.Evict(f, 0, 0)
	return h, nil
}

// repair copies one block again, from a source that must still be what it was.
func (c *copier) repair(ctx context.Context, b move.Span) error {
	p := c.newPump()
	defer p.Close()
	p.Order, p.Done = move.NewSequence(b.Off, nil), func() error { return nil }
	p.Blank = false // what is wrong there must go, also where zeroes belong
	p.Sums = digest.New(c.sums.Algorithm(), c.src.Size)
	if err := p.Run(ctx, b.Off, b.End()); err != nil {
		return err
	}
	if i := b.Off / digest.Block; p.Sums.Blocks()[i] != c.sums.Blocks()[i] {
		return fmt.Errorf("%w: %s at byte %d of %s reads differently from one time to the next", ErrVerify, move.Bytes(b.N), b.Off, c.src.Name)
	}
	return nil
}

// writeManifest puts the hashes next to the image, under their name only when they are whole.
func (c *copier) writeManifest() error {
	if c.opts.Manifest == "" {
		return nil
	}
	m := manifest.New(filepath.Base(c.src.Name), c.sums)
	if err := dest.WriteSidecar(c.opts.Manifest, manifest.Magic, m.Write); err != nil {
		return fmt.Errorf("the copy is whole, but its manifest could not be written: %w", move.OutOfSpace(err))
	}
	return nil
}
