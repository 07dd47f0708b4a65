// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/move"
	"imgward/copy/rescue"
	"imgward/copy/source"
)

// journal remembers on the medium how far a copy has come, so that it can go on after a signal, a crash or a power cut.
// A nil journal does nothing.
type journal struct {
	path  string
	f     *os.File // the target's
	state checkpoint.State
	old   bool // there was a state of an earlier run
	same  bool // as it was then, the source is a file, or a device that certainly has not been written to
	every int64
	log   *slog.Logger

	mu    sync.Mutex
	saved int64
}

// checkpointEvery is how much a crash may cost: seconds of copying on any disk, and a flush of its cache so rarely that
// it costs nothing.
const checkpointEvery = 256 << 20

// openJournal finds the state of an earlier run, if there is one of this source. What another version of imgcp wrote, or
// something else entirely, is left as it is: an error.
func openJournal(c *copier) (*journal, error) {
	path := c.dst.StatePath()
	if path == "" {
		c.opts.Log.Warn("this copy cannot be resumed: there is no directory to keep its state in")
		return nil, nil
	}
	j := &journal{path: path, log: c.opts.Log, every: c.opts.Checkpoint}
	if c.src.Kind == source.Device {
		_ = c.src.File.Sync() // what others wrote is counted when it leaves the cache; what fails to is not in the copy either
	}
	j.state.Source = checkpoint.Identify(c.src.Name, &c.src.Stat, c.src.Size)
	old, err := checkpoint.Load(path)
	if err == nil {
		err = old.Source.Same(j.state.Source)
	}
	switch {
	case err == nil:
		j.old, j.same = true, old.Source.Unwritten(j.state.Source)
		old.Source = j.state.Source
		j.state = old
	case errors.Is(err, checkpoint.ErrVersion), errors.Is(err, checkpoint.ErrNoFile):
		return nil, fmt.Errorf("--resume: %w; imgcp left it as it is. To start over, remove it", err)
	case !errors.Is(err, fs.ErrNotExist):
		j.log.Warn("cannot resume the earlier copy, copying everything again", "source", c.src.Name, "why", err)
	}
	return j, nil
}

// resume finds out how much of an earlier copy stays, and sets where this one goes on.
func (c *copier) resume(ctx context.Context) (keep int64, err error) {
	if !c.opts.Resume || dest.Whole(c.dst) {
		return 0, nil
	}
	if c.journal, err = openJournal(c); err != nil || c.journal == nil {
		return 0, err
	}
	f, err := c.dst.Earlier()
	if err != nil || f == nil {
		return 0, err
	}
	keep, err = c.keep(ctx, f)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		c.opts.Log.Warn("cannot resume the earlier copy, copying everything again", "destination", f.Name(), "why", err)
		return 0, nil
	}
	return keep, nil
}

// keep is how much of the contents of a file may stay.
func (c *copier) keep(ctx context.Context, f *os.File) (int64, error) {
	j := c.journal
	if !j.old || j.state.Durable == 0 {
		return 0, nil
	}
	now, err := identify(f)
	if err != nil {
		return 0, err
	}
	if now.Rdev == 0 && now.Size < j.state.Durable {
		return 0, errors.New("it has become shorter")
	}
	now.Size, now.MTime = j.state.Target.Size, j.state.Target.MTime // both change with every write of this copy
	if err := j.state.Target.Same(now); err != nil {
		return 0, err
	}
	keep := j.state.Durable
	if j.same && j.state.Target.SameDisk(now) {
		err = sample(c.src.File, f, keep)
	} else {
		keep, err = c.equal(ctx, f, keep)
	}
	if err != nil || keep == 0 {
		return 0, err
	}
	c.prog.Resumed.Store(keep)
	c.order.Add(move.Step{Len: keep, Method: move.MethodDone})
	for _, r := range j.state.Bad {
		if r.Off < keep {
			c.bad.MarkBad(r.Off, min(r.Len, keep-r.Off))
		}
	}
	j.state.Durable, j.saved = keep, keep
	return keep, nil
}

// equal compares the first n bytes of the source and of an earlier copy, and is how much of that is equal, in whole blocks.
func (c *copier) equal(ctx context.Context, f *os.File, n int64) (int64, error) {
	c.opts.Log.Info("a device may have been written to since, so imgcp compares what was copied earlier", "source", c.src.Name,
		"destination", f.Name(), "copied", move.Bytes(n))
	var sums [2]*digest.Tree
	group, inner := errgroup.WithContext(ctx)
	for i, of := range []*os.File{c.src.File, f} {
		h := move.NewHandle(of, unix.O_RDONLY, true)
		defer h.Close()
		h.Medium = of == f
		sums[i] = digest.New(digest.XXH3, n)
		group.Go(func() error {
			return hash(inner, h, sums[i], move.Span{Off: 0, N: n}, c.opts, countedReader(h, &c.prog.Checked))
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	a, b := sums[0].Blocks(), sums[1].Blocks()
	for i := range a {
		if a[i] != b[i] {
			return int64(i) * digest.Block, nil
		}
	}
	return n, nil
}

func identify(f *os.File) (checkpoint.Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return checkpoint.Identity{}, err
	}
	return checkpoint.Identify(f.Name(), &st, st.Size), nil
}

// samples of a MiB are compared before a copy goes on: the ends of what is there, and places in between that nobody can
// guess. A source that was written to without its times changing (by mmap, or another host) shows here, most likely.
const samples = 16

func sample(src, dst *os.File, durable int64) error {
	a, b := move.NewHandle(src, unix.O_RDONLY, true), move.NewHandle(dst, unix.O_RDONLY, true)
	defer a.Close()
	defer b.Close()
	b.Medium = true
	leaves := (durable + digest.Leaf - 1) / digest.Leaf
	for i := range int64(samples) {
		at := rand.Int64N(leaves)
		switch i {
		case 0:
			at = 0
		case 1:
			at = leaves - 1
		}
		if err := samePlace(a, b, at*digest.Leaf, min(digest.Leaf, durable-at*digest.Leaf)); err != nil {
			return err
		}
	}
	return nil
}

func samePlace(a, b *move.Handle, off, n int64) error {
	p, q := make([]byte, n, n+move.Chunk), make([]byte, n, n+move.Chunk)
	if _, err := a.ReadAt(p, off); err != nil {
		return err
	}
	if _, err := b.ReadAt(q, off); err != nil {
		return err
	}
	if !bytes.Equal(p, q) {
		return fmt.Errorf("at byte %d the source is not what was copied", off)
	}
	return nil
}

// begin takes the target's identity, once it exists: f is nil before that.
func (j *journal) begin(f *os.File) error {
	if j == nil || f == nil || j.f == f {
		return nil
	}
	id, err := identify(f)
	if err != nil {
		return err
	}
	j.f, j.state.Target = f, id
	if j.saved == 0 {
		j.state.Durable, j.state.Bad = 0, nil
	}
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return fmt.Errorf("make the directory for the state of resumable copies: %w", err)
	}
	return j.write()
}

func (j *journal) write() error {
	if err := j.state.Save(j.path); err != nil {
		return fmt.Errorf("--resume: save how far the copy has come in %s: %w", j.path, move.OutOfSpace(err))
	}
	return nil
}

// reached saves a checkpoint if the last one is old enough. Workers that find another one saving go on copying.
func (j *journal) reached(off int64, bad *rescue.Map) error {
	if j == nil || !j.mu.TryLock() {
		return nil
	}
	defer j.mu.Unlock()
	if off-j.saved < j.every {
		return nil
	}
	return j.save(off, bad)
}

// save makes [0, off) durable first, for off was reached before the flush began.
func (j *journal) save(off int64, bad *rescue.Map) error {
	if off < j.state.Source.Size {
		off = off / move.Chunk * move.Chunk // where a leaf begins
	}
	if err := unix.Fdatasync(int(j.f.Fd())); err != nil {
		return move.OutOfSpace(&os.PathError{Op: "flush", Path: j.f.Name(), Err: err})
	}
	j.state.Durable = off
	j.state.Bad = bad.Bad()
	if err := j.write(); err != nil {
		return err
	}
	j.saved = off
	return nil
}

// keep reports whether there is something to go on from. Of a copy that was interrupted it saves a last checkpoint. After
// an error it saves none: what a failed flush has lost the kernel reports once, and the next flush would succeed. What
// failed verification is no good at all.
func (j *journal) keep(cause error, interrupted bool, off int64, bad *rescue.Map) bool {
	if j == nil || j.f == nil {
		return false
	}
	if interrupted && off > 0 {
		if err := j.save(off, bad); err != nil {
			j.log.Warn("the last part of the copy will have to be copied again", "err", err)
		}
	}
	if errors.Is(cause, ErrVerify) || j.saved == 0 {
		j.done()
		return false
	}
	j.log.Warn("unfinished: run the same command again to resume", "copied", move.Bytes(j.saved))
	return true
}

// done forgets the copy: nothing is left to go on from.
func (j *journal) done() {
	if j == nil {
		return
	}
	j.f = nil
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.log.Warn("the state of the finished copy stays behind; remove it", "file", j.path, "err", err)
	}
}
