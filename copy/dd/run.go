// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/internal/sys"
	"imgward/copy/source"
)

// Copier is one run of dd under imgcp's rules: the bytes that end up in the output are those that GNU dd writes, but an image
// in use is refused, contents are not lost without --overwrite, and a new file shows up whole or not at all.
type Copier struct {
	op   Operands
	opts *imgcopy.Options
	in   *source.Source
	out  *output

	mu    sync.Mutex
	begun bool
	stats Stats
	whole bool // the pump moves it: stats are worked out from its progress
}

// New prepares a run. Of the options it takes Overwrite, Live, Requests, Users, Locks, Log, Progress and Confirm.
func New(op Operands, o imgcopy.Options) *Copier {
	o.Sync = op.Conv&(Fsync|Fdatasync) != 0
	o.KeepZeroes = op.Conv&Sparse == 0
	if op.OFlag&Direct != 0 {
		o.Direct = imgcopy.Always
	}
	return &Copier{op: op, opts: &o}
}

// Stats is what has been copied so far.
func (d *Copier) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole {
		return d.op.Counted(d.opts.Progress.Moved() + d.opts.Progress.Holes.Load())
	}
	return d.stats
}

// Begun reports whether anything was copied or could have been: not so if a file was refused or could not be opened.
func (d *Copier) Begun() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

// Run copies. Its errors are those of Copy, but for ErrIncomplete: conv=noerror is what was asked for.
func (d *Copier) Run(ctx context.Context) (err error) {
	if d.in, err = openDDInput(ctx, d.op); err != nil {
		return err
	}
	defer d.in.Close()
	if d.out, err = openDDOutput(ctx, d.op, d.in, d.opts); err != nil {
		return err
	}
	defer func() { d.out.end() }()
	if !d.sameFile() { // the output's locks cover both
		if err := d.in.Admit(ctx, &d.opts.Options.Options, dest.NewName(d.out.t)); err != nil {
			return err
		}
	}
	if n, ok := d.allocates(); ok {
		if err := d.out.t.Room(n, func() (int64, error) { return n, nil }); err != nil {
			return err
		}
	}
	if err := d.out.prepare(d.op); err != nil {
		return err
	}
	d.mu.Lock()
	d.begun = true
	d.mu.Unlock()
	if err := d.copy(ctx); err != nil {
		return imgcopy.Cause(ctx, err)
	}
	if err := d.out.commit(d.op); err != nil {
		return err
	}
	d.evict()
	return nil
}

// evict is iflag=nocache and oflag=nocache: what is clean leaves the page cache.
func (d *Copier) evict() {
	if d.op.IFlag&NoCache != 0 {
		sys.Evict(d.in.File, 0, 0)
	}
	if d.op.OFlag&NoCache != 0 {
		sys.Evict(d.out.file(), 0, 0)
	}
}

// copy picks the fastest way that has dd's result.
func (d *Copier) copy(ctx context.Context) error {
	if n, ok := d.zeroes(); ok {
		return d.makeZeroes(ctx, n)
	}
	if d.pumps() {
		return d.pump(ctx)
	}
	return (&records{Copier: d}).run(ctx)
}

// openDDInput takes character devices too, which an image copy has no use for.
func openDDInput(ctx context.Context, op Operands) (*source.Source, error) {
	f := os.Stdin
	flags := op.IFlag
	if op.In == "" {
		if err := sys.CheckOpen(f); err != nil {
			return nil, err
		}
	} else {
		fd, err := sys.Wait(ctx, func() (int, error) {
			return unix.Open(op.In, unix.O_RDONLY|unix.O_CLOEXEC|openFlags(op.IFlag), 0)
		})
		if err != nil {
			return nil, &os.PathError{Op: "open input", Path: op.In, Err: err}
		}
		if err := unix.SetNonblock(fd, false); err != nil { // or os.File would wait where dd does not
			unix.Close(fd)
			return nil, &os.PathError{Op: "open input", Path: op.In, Err: err}
		}
		f = os.NewFile(uintptr(fd), op.In)
		flags &= NonBlock
	}
	s := &source.Source{Name: f.Name(), File: f, Release: func() {}}
	if err := setFlags(f, flags); err != nil {
		s.Close()
		return nil, err
	}
	if err := unix.Fstat(int(f.Fd()), &s.Stat); err != nil {
		s.Close()
		return nil, &os.PathError{Op: "stat", Path: s.Name, Err: err}
	}
	if s.Stat.Mode&unix.S_IFMT == unix.S_IFCHR {
		s.Kind = source.Stream
		return s, nil
	}
	if err := s.Identify(); err != nil {
		s.Close()
		return nil, fmt.Errorf("input: %w", err)
	}
	return s, nil
}

// openFlags are the flags that go to open(2). O_DIRECT does not: whoever needs it reopens.
func openFlags(f Flag) int {
	flags := 0
	for _, b := range []struct {
		flag Flag
		bits int
	}{
		{Append, unix.O_APPEND}, {DSync, unix.O_DSYNC}, {SyncIO, unix.O_SYNC}, {NonBlock, unix.O_NONBLOCK},
		{NoAtime, unix.O_NOATIME}, {NoCTTY, unix.O_NOCTTY}, {NoFollow, unix.O_NOFOLLOW},
		{Directory, unix.O_DIRECTORY},
	} {
		if f&b.flag != 0 {
			flags |= b.bits
		}
	}
	return flags
}

// setFlags gives a descriptor that is open already the flags that fcntl(2) can set. Those that it shares it with get them
// too, as from GNU dd.
func setFlags(f *os.File, flags Flag) error {
	add := openFlags(flags) &^ (unix.O_NOCTTY | unix.O_NOFOLLOW)
	if flags&Direct != 0 {
		add |= unix.O_DIRECT
	}
	if add == 0 {
		return nil
	}
	have, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil && flags&Directory != 0 {
		err = unix.ENOTDIR // what is one is refused later, for it cannot be read
		if st, statErr := f.Stat(); statErr == nil && st.IsDir() {
			err = nil
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, have|add)
	}
	if err != nil {
		return &os.PathError{Op: "set flags of", Path: f.Name(), Err: err}
	}
	return nil
}
