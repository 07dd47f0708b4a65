package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
	"imgward/copy/claim"
	"imgward/copy/internal/sys"
	"imgward/guard"
)

// kind is what a path turned out to be.
type kind int

const (
	regular kind = iota
	device       // a block device
	stream       // a pipe, socket or character device: read once, in order
)

// source is an image being read.
type source struct {
	name     string // as the caller named it
	f        *os.File
	kind     kind
	size     int64 // 0 for a stream
	stat     unix.Stat_t
	snapshot *Snapshot // set when f is not the named file but a consistent copy of it
	release  func()    // of the image lock
}

// openSource opens the image for reading only, whatever its kind, and "-" as standard input.
func openSource(name string) (*source, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = openForReading(name); err != nil {
			return nil, err
		}
	}
	s := &source{name: name, f: f, release: func() {}}
	if err := s.identify(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openForReading does not hang on a FIFO's missing writer before it is known to be one: O_NONBLOCK first.
func openForReading(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open source", Path: name, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open source", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// identify finds out the kind and the size.
func (s *source) identify() error {
	if err := unix.Fstat(int(s.f.Fd()), &s.stat); err != nil {
		return &os.PathError{Op: "stat", Path: s.name, Err: err}
	}
	switch s.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.kind, s.size = regular, s.stat.Size
	case unix.S_IFBLK:
		size, err := sys.DeviceSize(s.f)
		if err != nil {
			return err
		}
		s.kind, s.size = device, size
	case unix.S_IFDIR:
		return fmt.Errorf("%s is a directory; imgcp copies images: name the files in it", s.name)
	case unix.S_IFIFO, unix.S_IFSOCK:
		s.kind = stream
	default:
		return fmt.Errorf("%s is a character device, which has no end; to read a part of it: imgcp dd if=%s count=…", s.name, s.name)
	}
	return nil
}

// admit makes sure that what is read is one consistent image: an idle source is locked against writers while it is
// copied; one that a machine writes to is refused, or replaced by a snapshot of it if the caller chose a way.
func (s *source) admit(ctx context.Context, o *Options, t target) error {
	if s.kind == stream || o.Users == nil {
		return nil
	}
	uses, err := o.Users.InUse(ctx, s.f)
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", s.name, err)
	}
	if w := writable(uses); len(w) > 0 {
		return s.admitLive(ctx, o, w, t)
	}
	if len(uses) > 0 || o.Locks == nil { // read-only users have locks that allow readers and keep writers out
		return nil
	}
	release, err := o.Locks.Read(s.f)
	switch {
	case errors.Is(err, ErrInUse) && o.Live == nil:
		return &InUseError{Path: s.name, Hint: liveHint}
	case errors.Is(err, ErrInUse):
		return s.admitLive(ctx, o, nil, t)
	case err != nil:
		return err
	}
	s.release = release
	return nil
}

const liveHint = "a copy of a disk under writes is torn. Shut the domain down, or choose --live=suspend-reflink, " +
	"--live=backup or (inconsistent!) --live=torn"

func (s *source) admitLive(ctx context.Context, o *Options, uses []guard.Use, t target) error {
	if o.Live == nil {
		return &InUseError{Path: s.name, Uses: uses, Hint: liveHint}
	}
	path, err := resolve(s.name)
	if err != nil {
		return err
	}
	i := LiveImage{File: s.f, Path: path, Uses: uses}
	if t, ok := t.(*fresh); ok {
		i.Target = t.path()
	}
	snap, err := o.Live.Snapshot(ctx, i)
	if err != nil {
		return fmt.Errorf("make a consistent copy of %s: %w", s.name, err)
	}
	s.snapshot = snap
	if snap.File != s.f {
		old := s.f
		s.f = snap.File
		defer old.Close()
		stat := s.stat // owner, mode and times are the image's, not the snapshot's
		if err := s.identify(); err != nil {
			return err
		}
		stat.Size = s.stat.Size
		s.stat = stat
	}
	return nil
}

// inspect looks for an image that is empty, or half of one. "The backups were empty" is found out on the day they are
// needed, unless somebody says so on the day they are made.
func (s *source) inspect(log *slog.Logger) {
	if s.kind == stream {
		return
	}
	if s.size == 0 {
		log.Warn("this image is empty: is it the right one?", "image", s.name)
		return
	}
	if c, ok := claim.Of(s.f); ok && c.Bytes > s.size {
		log.Warn("this image is smaller than its own header says: a part of it is missing", "image", s.name,
			"bytes", s.size, "header", c.What, "claims", c.Bytes)
	}
	if s.kind == device {
		if err := blockdev.Held(s.f); err != nil {
			log.Warn("this device is in use; what is written to it meanwhile makes the copy torn", "device", s.name, "why", err)
		}
	}
	if loops := blockdev.LoopsOf(s.f); len(loops) > 0 {
		log.Warn("this image is attached as a loop device; what is written there meanwhile may be missing in the copy",
			"image", s.name, "device", strings.Join(loops, ", "))
	}
}

// data is how much of the image is data, as far as the file system knows without being asked for a map.
func (s *source) data() int64 {
	if s.kind != regular {
		return s.size
	}
	return min(s.size, s.stat.Blocks*512)
}

// changed reports that the source was written to while it was copied, which only locks that everybody honours
// would have kept out: a copy of it is torn. Devices have no times that tell.
func (s *source) changed() bool {
	if s.kind != regular || s.snapshot != nil {
		return false
	}
	var now unix.Stat_t
	if unix.Fstat(int(s.f.Fd()), &now) != nil {
		return true
	}
	return now.Size != s.stat.Size || now.Mtim != s.stat.Mtim
}

func (s *source) close() {
	s.release()
	if s.snapshot != nil {
		s.snapshot.Close()
	}
	if s.f != os.Stdin {
		s.f.Close()
	}
}
