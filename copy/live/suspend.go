package live

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/internal/sys"
)

// Suspend clones the disk while its machines stand still. To them it looks like a pause; what is in the copy is what a
// power cut would have left: everything that the guest was told is on the disk.
type Suspend struct {
	Helper []string // the command line of a process that calls Guard
	Log    *slog.Logger
}

// suspendLimit ends a suspension that goes wrong. Cloning takes milliseconds, a second on a disk with a million extents.
const suspendLimit = 10 * time.Second

// Snapshot implements imgcopy.Live.
func (s Suspend) Snapshot(ctx context.Context, i imgcopy.LiveImage) (_ *imgcopy.Snapshot, err error) {
	names, err := domains(i)
	if err != nil {
		return nil, err
	}
	c, err := s.newClone(i)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard())
		}
	}()
	if err := c.rehearse(ctx, i.File); err != nil {
		return nil, errNoReflink(i.Path, err)
	}
	if err := s.suspended(ctx, names, func() error { return c.take(ctx, i.File, atOnce) }); err != nil {
		return nil, err
	}
	return c.snapshot(), nil
}

// suspended calls do while the domains stand still. Those that stood still before are left as they are.
func (s Suspend) suspended(ctx context.Context, names []string, do func() error) error {
	sc := script{Limit: suspendLimit}
	for _, name := range names {
		state, err := ask(ctx, "domstate", "--domain", name)
		if err != nil {
			return err
		}
		if state == "running" {
			sc.Steps = append(sc.Steps, step{
				Enter: virsh("suspend", "--domain", name),
				Leave: virsh("resume", "--domain", name),
			})
		}
	}
	w, err := startWard(s.Helper, sc)
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
		return fmt.Errorf("the clone took longer than %v; the domains run again, and there is no copy", suspendLimit)
	}
	s.Log.Info("cloned while suspended", "domains", names, "for", time.Since(begun).Round(time.Millisecond))
	return nil
}

// clone is the file that a disk is cloned into.
type clone struct {
	f       *os.File
	path    string   // "" for a file without a name
	adopt   bool     // it may become the copy
	janitor *janitor // removes path if this process is killed
}

// newClone makes it where it can become the copy, if that is on the disk's own file system; else beside the disk.
func (s Suspend) newClone(i imgcopy.LiveImage) (*clone, error) {
	adopt, err := sameFileSystem(i)
	if err != nil {
		return nil, err
	}
	near := i.Path
	if adopt {
		near = i.Target
	}
	dir, err := os.Open(filepath.Dir(near))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if sys.LinksUnnamed(dir) {
		f, err := sys.TempFile(dir, "the clone of "+i.Path, 0o600)
		return &clone{f: f, adopt: adopt}, err
	}
	c := &clone{path: hidden(near), adopt: adopt}
	if c.janitor, err = hire(s.Helper, c.path); err != nil {
		return nil, err
	}
	if c.f, err = os.OpenFile(c.path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600); err != nil {
		c.janitor.dismiss()
		return nil, err
	}
	return c, nil
}

// sameFileSystem reports whether the target is to be a file on the file system of the disk.
func sameFileSystem(i imgcopy.LiveImage) (bool, error) {
	var src, dir unix.Stat_t
	if err := unix.Fstat(int(i.File.Fd()), &src); err != nil {
		return false, err
	}
	return i.Target != "" && unix.Stat(filepath.Dir(i.Target), &dir) == nil && src.Dev == dir.Dev, nil
}

// hidden is a name beside path.
func hidden(path string) string {
	var b [6]byte
	rand.Read(b[:])
	name := filepath.Base(path)
	return filepath.Join(filepath.Dir(path), "."+name[:min(len(name), 200)]+".imgcp-"+hex.EncodeToString(b[:]))
}

func (c *clone) snapshot() *imgcopy.Snapshot {
	s := &imgcopy.Snapshot{File: c.f, Unnamed: c.adopt && c.path == "", Close: c.discard}
	if c.adopt {
		s.Adopt = c.path
	}
	return s
}

// discard removes the name if it is still there: once adopted, it is gone or another one.
func (c *clone) discard() error {
	defer c.janitor.dismiss()
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
