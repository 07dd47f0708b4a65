// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/source"
)

// Suspend clones the disk while its machines are suspended. To them it looks like a pause; what is in the copy is what a
// power cut would have left: everything that the guest was told is on the disk.
type Suspend struct {
	Libvirt Libvirt
	Helper  []string // the command line of a process that calls Guard
	Log     *slog.Logger
	// MaxPause is for how long the machines may be suspended: what is expected to take longer is not begun, and what does
	// is given up. 0: DefaultMaxPause.
	MaxPause time.Duration
}

// DefaultMaxPause is what a guest and its clients take for a hiccup. Cloning takes milliseconds, but for disks with tens of
// thousands of extents.
const DefaultMaxPause = 2 * time.Second

// Snapshot implements source.Live.
func (s Suspend) Snapshot(ctx context.Context, i source.LiveImage) (_ *source.Snapshot, err error) {
	c, names, pause, err := s.prepare(ctx, i)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard())
		}
	}()
	s.Log.Info("suspending", "domains", names, "expected", pause.Round(time.Millisecond), "at most", s.limit())
	if err := s.suspended(ctx, names, func() error { return c.take(ctx, i.File) }); err != nil {
		return nil, err
	}
	return c.snapshot(), nil
}

// Plan implements source.Planner: it refuses what Snapshot refuses before it suspends anything.
func (s Suspend) Plan(ctx context.Context, i source.LiveImage) error {
	c, _, _, err := s.prepare(ctx, i)
	if err != nil {
		return err
	}
	return c.discard()
}

// prepare makes the file for the clone, and says which domains are to be suspended, and for how long.
func (s Suspend) prepare(ctx context.Context, i source.LiveImage) (c *clone, names []string, pause time.Duration, err error) {
	if names, err = domains(i); err != nil {
		return nil, nil, 0, err
	}
	pause, known, err := s.pause(i)
	if err != nil {
		return nil, nil, 0, err
	}
	if c, err = s.newClone(i); err != nil {
		return nil, nil, 0, err
	}
	if pause, err = c.rehearse(ctx, i.File, pause, known, s.limit()); err != nil {
		return nil, nil, 0, errors.Join(err, c.discard())
	}
	return c, names, pause, nil
}

func (s Suspend) limit() time.Duration {
	if s.MaxPause == 0 {
		return DefaultMaxPause
	}
	return s.MaxPause
}

// suspended calls do while the domains are suspended. Those that are suspended already are left as they are.
func (s Suspend) suspended(ctx context.Context, names []string, do func() error) error {
	sc := script{Limit: s.limit()}
	for _, name := range names {
		d, err := find(ctx, s.Libvirt, name)
		if err != nil {
			return err
		}
		state, err := s.Libvirt.State(ctx, d)
		if err != nil {
			return err
		}
		if state == "running" {
			sc.Steps = append(sc.Steps, step{Kind: suspend, Domain: name})
		}
	}
	w, err := startGuardian(s.Helper, sc, s.Libvirt)
	if err != nil {
		return err
	}
	begun := time.Now()
	err = do()
	late, leaveErr := w.leave()
	if err = errors.Join(err, leaveErr); err != nil {
		return err
	}
	if late {
		return fmt.Errorf("the clone took longer than %v (--max-pause); the domains run again, and there is no copy", s.limit())
	}
	s.Log.Info("cloned while suspended", "domains", names, "for", time.Since(begun).Round(time.Millisecond))
	return nil
}

// clone is the file that a disk is cloned into.
type clone struct {
	f       *os.File
	path    string // "" for a file without a name
	own     bool   // made for the copy alone: it may become that
	remover *Undo  // removes path if this process is killed
}

// newClone makes it where it can become the copy, if that is on the disk's own file system; else in the disk's directory.
func (s Suspend) newClone(i source.LiveImage) (*clone, error) {
	own, err := sameFileSystem(i)
	if err != nil {
		return nil, err
	}
	near := i.Path
	if own {
		near = i.Target
	}
	dir, err := os.Open(filepath.Dir(near))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if sys.LinksUnnamed(dir) {
		f, err := sys.TempFile(dir, "the clone of "+i.Path, 0o600)
		return &clone{f: f, own: own}, err
	}
	c := &clone{path: hidden(near), own: own}
	if c.remover, err = startRemover(s.Helper, c.path); err != nil {
		return nil, err
	}
	if c.f, err = os.OpenFile(c.path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600); err != nil {
		c.remover.Dismiss()
		return nil, err
	}
	return c, nil
}

// sameFileSystem reports whether the target is to be a file on the file system of the disk.
func sameFileSystem(i source.LiveImage) (bool, error) {
	var src, dir unix.Stat_t
	if err := unix.Fstat(int(i.File.Fd()), &src); err != nil {
		return false, err
	}
	return i.Target != "" && unix.Stat(filepath.Dir(i.Target), &dir) == nil && src.Dev == dir.Dev, nil
}

// hidden is a name in the directory of path.
func hidden(path string) string {
	return filepath.Join(filepath.Dir(path), sys.HiddenName(filepath.Base(path), ""))
}

func (c *clone) snapshot() *source.Snapshot {
	s := &source.Snapshot{File: c.f, Unnamed: c.own && c.path == "", Close: c.discard}
	if c.own {
		s.Name = c.path
	}
	return s
}

// discard removes the name if it is still there: once it is the copy, that is gone or another one.
func (c *clone) discard() error {
	defer c.remover.Dismiss()
	defer c.f.Close()
	if c.path == "" {
		return nil
	}
	var mine, now unix.Stat_t
	if unix.Fstat(int(c.f.Fd()), &mine) != nil || unix.Lstat(c.path, &now) != nil || mine.Ino != now.Ino {
		return nil
	}
	return os.Remove(c.path)
}
