package imgcopy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/digest"
	"imgward/copy/rescue"
)

// journal remembers on the medium how far a copy has come, so that it can go on after a signal, a crash or a power cut.
// A nil journal does nothing.
type journal struct {
	path  string
	f     *os.File // the target's
	state checkpoint.State
	old   bool // there was a state of an earlier run
	every int64
	log   *slog.Logger

	mu    sync.Mutex
	saved int64
}

// checkpointEvery is how much a crash may cost: seconds of copying on any disk, and a flush of its cache so rarely that
// it costs nothing.
const checkpointEvery = 256 << 20

// openJournal finds the state of an earlier run, if there is one of this source.
func openJournal(c *copier) *journal {
	path := c.dst.statePath()
	if path == "" {
		c.opts.Log.Warn("this destination cannot be resumed", "destination", "a pipe")
		return nil
	}
	j := &journal{path: path, log: c.opts.Log, every: c.opts.Checkpoint}
	j.state.Source = checkpoint.Identify(c.src.name, &c.src.stat, c.src.size)
	old, err := checkpoint.Load(path)
	if err == nil {
		err = old.Source.Same(j.state.Source)
	}
	switch {
	case err == nil:
		j.state, j.old = old, true
	case !errors.Is(err, fs.ErrNotExist):
		j.log.Warn("cannot go on from the earlier copy, starting anew", "source", c.src.name, "why", err)
	}
	return j
}

// resumes is asked by the target about a file with contents: may they stay? It sets where the copy goes on.
func (c *copier) resumes(f *os.File) bool {
	j := c.journal
	if j == nil || !j.old || j.state.Durable == 0 {
		return false
	}
	now, err := identify(f)
	if err == nil {
		now.Size, now.MTime = j.state.Target.Size, j.state.Target.MTime // both change with every write of ours
		err = j.state.Target.Same(now)
	}
	if err == nil {
		err = sample(c.src.f, f, j.state.Durable)
	}
	if err != nil {
		j.log.Warn("cannot go on from the earlier copy, starting anew", "destination", f.Name(), "why", err)
		return false
	}
	c.order.reach(j.state.Durable)
	c.prog.Resumed.Store(j.state.Durable)
	c.tell.merge(Step{Len: j.state.Durable, Method: MethodDone})
	for _, r := range j.state.Bad {
		c.bad.MarkBad(r.Off, r.Len)
	}
	j.saved = j.state.Durable
	return true
}

func identify(f *os.File) (checkpoint.Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return checkpoint.Identity{}, err
	}
	return checkpoint.Identify(f.Name(), &st, st.Size), nil
}

// samples of a MiB are compared before a copy goes on: the ends of what is there, and places in between that nobody can
// guess. A source that was written to without its times changing (a block device, mmap) shows here.
const samples = 16

func sample(src, dst *os.File, durable int64) error {
	a, b := newHandle(src, unix.O_RDONLY, true), newHandle(dst, unix.O_RDONLY, true)
	defer a.close()
	defer b.close()
	b.medium = true
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

func samePlace(a, b *handle, off, n int64) error {
	p, q := make([]byte, n, n+chunk), make([]byte, n, n+chunk)
	if _, err := a.readAt(p, off); err != nil {
		return err
	}
	if _, err := b.readAt(q, off); err != nil {
		return err
	}
	if !bytes.Equal(p, q) {
		return fmt.Errorf("at byte %d the source is not what was copied", off)
	}
	return nil
}

// begin takes the target's identity, once it exists.
func (j *journal) begin(f *os.File) error {
	if j == nil {
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
	return j.state.Save(j.path)
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
		off = off / chunk * chunk // where a leaf begins
	}
	if err := unix.Fdatasync(int(j.f.Fd())); err != nil {
		return outOfSpace(&os.PathError{Op: "flush", Path: j.f.Name(), Err: err})
	}
	j.state.Durable = off
	j.state.Bad = bad.Bad()
	if err := j.state.Save(j.path); err != nil {
		return fmt.Errorf("save the state of the copy: %w", outOfSpace(err))
	}
	j.saved = off
	return nil
}

// keep reports whether there is something to go on from. Of a copy that was interrupted it saves a last checkpoint. After
// an error it saves none: what a failed flush has lost the kernel tells once, and the next flush would succeed. What
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
	j.log.Warn("unfinished; the same command goes on from there", "copied", Bytes(j.saved))
	return true
}

// done forgets the copy.
func (j *journal) done() {
	if j == nil {
		return
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.log.Warn("the state of the finished copy stays behind; remove it", "file", j.path, "err", err)
	}
}
