package imgcopy

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
	"imgward/copy/internal/sys"
)

// DD is one run of dd under imgcp's rules: the bytes that end up in the output are those that GNU dd writes, but an image
// in use is refused, contents are not lost without --overwrite, and a new file shows up whole or not at all.
type DD struct {
	op   dd.Operands
	opts *Options
	in   *source
	out  *ddOutput

	mu    sync.Mutex
	begun bool
	stats dd.Stats
	whole bool // the pump moves it: stats are worked out from its progress
}

// NewDD prepares a run. Of the options it takes Overwrite, Live, Requests, Users, Locks, Log, Progress and Confirm.
func NewDD(op dd.Operands, o Options) *DD {
	o.Sync = op.Conv&(dd.Fsync|dd.Fdatasync) != 0
	o.KeepZeroes = op.Conv&dd.Sparse == 0
	if op.OFlag&dd.Direct != 0 {
		o.Direct = Always
	}
	return &DD{op: op, opts: &o}
}

// Stats is what has been copied so far.
func (d *DD) Stats() dd.Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole {
		return d.op.Counted(d.opts.Progress.Moved() + d.opts.Progress.Holes.Load())
	}
	return d.stats
}

// Begun reports whether anything was copied or could have been: not so if a file was refused or could not be opened.
func (d *DD) Begun() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

// Run copies. Its errors are those of Copy; ErrIncomplete after conv=noerror met an error.
func (d *DD) Run(ctx context.Context) (err error) {
	if d.in, err = openDDInput(d.op); err != nil {
		return err
	}
	defer d.in.close()
	if d.out, err = openDDOutput(ctx, d.op, d.in, d.opts); err != nil {
		return err
	}
	defer func() { d.out.end() }()
	if !d.sameFile() { // the output's locks cover both
		if err := d.in.admit(ctx, d.opts, d.out.t); err != nil {
			return err
		}
	}
	if err := d.out.prepare(d.op); err != nil {
		return err
	}
	d.mu.Lock()
	d.begun = true
	d.mu.Unlock()
	incomplete, err := d.copy(ctx)
	if err != nil {
		return cause(ctx, err)
	}
	if err := d.out.commit(d.op); err != nil {
		return err
	}
	d.evict()
	return incomplete
}

// evict is iflag=nocache and oflag=nocache: what is clean leaves the page cache.
func (d *DD) evict() {
	if d.op.IFlag&dd.NoCache != 0 {
		sys.Evict(d.in.f, 0, 0)
	}
	if d.op.OFlag&dd.NoCache != 0 {
		sys.Evict(d.out.file(), 0, 0)
	}
}

// copy picks the fastest way that has dd's result.
func (d *DD) copy(ctx context.Context) (incomplete, err error) {
	if n, ok := d.zeroes(); ok {
		return nil, d.makeZeroes(ctx, n)
	}
	if d.pumps() {
		return nil, d.pump(ctx)
	}
	r := &records{DD: d}
	err = r.run(ctx)
	return r.incomplete, err
}

// openDDInput takes character devices too, which an image copy has no use for.
func openDDInput(op dd.Operands) (*source, error) {
	f := os.Stdin
	if op.In != "" {
		fd, err := unix.Open(op.In, unix.O_RDONLY|unix.O_CLOEXEC|openFlags(op.IFlag), 0)
		if err != nil {
			return nil, &os.PathError{Op: "open input", Path: op.In, Err: err}
		}
		f = os.NewFile(uintptr(fd), op.In)
	}
	s := &source{name: f.Name(), f: f, release: func() {}}
	if err := unix.Fstat(int(f.Fd()), &s.stat); err != nil {
		return nil, &os.PathError{Op: "stat", Path: s.name, Err: err}
	}
	if s.stat.Mode&unix.S_IFMT == unix.S_IFCHR {
		s.kind = stream
		return s, nil
	}
	if err := s.identify(); err != nil {
		s.close()
		return nil, fmt.Errorf("input: %w", err)
	}
	return s, nil
}

// openFlags are the flags that go to open(2). O_DIRECT does not: whoever needs it reopens.
func openFlags(f dd.Flag) int {
	flags := 0
	for _, b := range []struct {
		flag dd.Flag
		bits int
	}{
		{dd.Append, unix.O_APPEND}, {dd.DSync, unix.O_DSYNC}, {dd.SyncIO, unix.O_SYNC}, {dd.NonBlock, unix.O_NONBLOCK},
		{dd.NoAtime, unix.O_NOATIME}, {dd.NoCTTY, unix.O_NOCTTY}, {dd.NoFollow, unix.O_NOFOLLOW},
		{dd.Directory, unix.O_DIRECTORY},
	} {
		if f&b.flag != 0 {
			flags |= b.bits
		}
	}
	return flags
}
