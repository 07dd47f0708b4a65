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

	"imgward/copy/digest"
	"imgward/copy/internal/sys"
	"imgward/copy/manifest"
	"imgward/copy/rescue"
)

// wantSums begins to hash if the copy is to be verified or described.
func (c *copier) wantSums(size int64) {
	switch {
	case c.opts.Manifest != "":
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
	src := newHandle(c.src.f, unix.O_RDONLY, c.opts.Direct != Never)
	defer src.close()
	read := countedReader(src, &c.prog.Checked)
	if c.opts.OnError != Stop { // what cannot be read counts as the zeroes that the copy has there
		s := &salvage{src: src, bad: new(rescue.Map), log: slog.New(slog.DiscardHandler)}
		whole := read
		read = func(ctx context.Context, b []byte, off int64) error {
			if err := whole(ctx, b, off); err != nil {
				return s.read(ctx, b, off, err)
			}
			return nil
		}
	}
	return hash(ctx, src, c.sums, span{0, c.hashed}, c.opts, read)
}

// reader fills b from off.
type reader func(ctx context.Context, b []byte, off int64) error

// countedReader reads from h and adds to a counter.
func countedReader(h *handle, count *atomic.Int64) reader {
	return func(_ context.Context, b []byte, off int64) error {
		n, err := h.readAt(b, off)
		count.Add(int64(n))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%s ends at byte %d", h.f.Name(), off+int64(n))
		}
		return err
	}
}

// hash feeds a range of h, which begins where a leaf does, to the tree.
func hash(ctx context.Context, h *handle, t *digest.Tree, r span, o *Options, read reader) error {
	s := sweep{
		src: h, requests: o.Requests, limit: o.Limit, whole: true, read: read,
		visit: func(_ context.Context, p piece, b []byte) error {
			if b == nil {
				t.Hole(p.off, p.n)
			} else {
				t.Data(p.off, b)
			}
			return nil
		},
	}
	return s.run(ctx, r.off, r.end())
}

// verify reads the copy back from the medium and compares it with what was read from the source. A block that differs
// is written once more: a bit that fell over on its way is cured by that, a bad medium or bad memory is not.
func (c *copier) verify(ctx context.Context) error {
	c.prog.phase.Store(PhaseVerify)
	bad, err := c.differing(ctx, []span{{0, c.src.size}})
	if err != nil || len(bad) == 0 {
		return err
	}
	for _, b := range bad {
		c.opts.Log.Warn("the copy differs from the source, writing it again", "offset", b.off, "bytes", b.n)
		if err := c.repair(ctx, b); err != nil {
			return err
		}
	}
	still, err := c.differing(ctx, bad)
	if err != nil {
		return err
	}
	if len(still) > 0 {
		return fmt.Errorf("%w: %s at byte %d of the copy is not what was written, for the second time; "+
			"do not trust this medium (or this memory)", ErrVerify, Bytes(still[0].n), still[0].off)
	}
	c.repaired = len(bad)
	return nil
}

// differing reads runs of whole blocks back and returns the blocks that are not as they should be.
func (c *copier) differing(ctx context.Context, runs []span) (bad []span, err error) {
	h, err := fromMedium(c.dst.file())
	if err != nil {
		return nil, err
	}
	defer h.close()
	got := digest.New(c.sums.Algorithm(), c.src.size)
	for _, r := range runs {
		if err := hash(ctx, h, got, r, c.opts, countedReader(h, &c.prog.Checked)); err != nil {
			return nil, fmt.Errorf("read the copy back: %w", err)
		}
	}
	want, have := c.sums.Blocks(), got.Blocks()
	for _, r := range runs {
		for off := r.off; off < r.end(); off += digest.Block {
			if i := off / digest.Block; want[i] != have[i] {
				bad = append(bad, span{off, min(digest.Block, c.src.size-off)})
			}
		}
	}
	return bad, nil
}

// fromMedium opens f for reads that no cache answers: with direct I/O, or where there is none with the cache emptied.
func fromMedium(f *os.File) (*handle, error) {
	if err := f.Sync(); err != nil {
		return nil, outOfSpace(err)
	}
	h := newHandle(f, unix.O_RDONLY, true)
	h.medium = true
	sys.Evict(f, 0, 0)
	return h, nil
}

// repair copies one block again, from a source that must still be what it was.
func (c *copier) repair(ctx context.Context, b span) error {
	p := c.newPump()
	defer p.close()
	p.tell, p.order, p.done = nil, newSequence(b.off), func() error { return nil }
	p.blank = false // what is wrong there must go, also where zeroes belong
	p.sums = digest.New(c.sums.Algorithm(), c.src.size)
	if err := p.run(ctx, b.off, b.end()); err != nil {
		return err
	}
	if i := b.off / digest.Block; p.sums.Blocks()[i] != c.sums.Blocks()[i] {
		return fmt.Errorf("%w: %s at byte %d of %s reads differently from one time to the next", ErrVerify, Bytes(b.n), b.off, c.src.name)
	}
	return nil
}

// writeManifest puts the hashes beside the image, under their name only when they are whole.
func (c *copier) writeManifest() error {
	if c.opts.Manifest == "" {
		return nil
	}
	m := manifest.New(filepath.Base(c.src.name), c.sums)
	if err := replaceFile(c.opts.Manifest, m.Write); err != nil {
		return fmt.Errorf("write the manifest: %w", outOfSpace(err))
	}
	return nil
}
