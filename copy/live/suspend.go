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
	c, err := newClone(i)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
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
	f    *os.File
	path string // "" for a file without a name
}

// newClone makes it beside the target, where it can become the copy, if that is the disk's own file system; else beside
// the disk, without a name.
func newClone(i imgcopy.LiveImage) (*clone, error) {
	path, err := beside(i)
	if err != nil {
		return nil, err
	}
	if path != "" {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		return &clone{f, path}, err
	}
	dir, err := os.Open(filepath.Dir(i.Path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if f, err := sys.TempFile(dir, 0o600); err == nil {
		return &clone{f: f}, nil
	}
	path = hidden(i.Path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	return &clone{f, path}, err
}

// beside is a hidden name next to the target, or "" where the target is on another file system or is not a file to be.
func beside(i imgcopy.LiveImage) (string, error) {
	var src, dir unix.Stat_t
	if err := unix.Fstat(int(i.File.Fd()), &src); err != nil {
		return "", err
	}
	if i.Target == "" || unix.Stat(filepath.Dir(i.Target), &dir) != nil || src.Dev != dir.Dev {
		return "", nil
	}
	return hidden(i.Target), nil
}

// hidden is a name beside path.
func hidden(path string) string {
	var b [6]byte
	rand.Read(b[:])
	name := filepath.Base(path)
	return filepath.Join(filepath.Dir(path), "."+name[:min(len(name), 200)]+".imgcp-"+hex.EncodeToString(b[:]))
}

func (c *clone) remove() error {
	err := c.f.Close()
	if c.path != "" {
		err = errors.Join(err, os.Remove(c.path))
	}
	return err
}

func (c *clone) snapshot() *imgcopy.Snapshot {
	return &imgcopy.Snapshot{File: c.f, Adopt: c.path, Close: func() error { return c.discard() }}
}

// discard removes the name if it is still there: once adopted, it is gone or another one.
func (c *clone) discard() error {
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
