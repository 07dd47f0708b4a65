// SPDX-License-Identifier: Apache-2.0

// Package source is the image that is copied: what it is, who uses it, and whether it may be read now.
package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
	"imgward/copy/claim"
	"imgward/copy/internal/sys"
	"imgward/guard"
)

// kind is what a path turned out to be.
type kind int

// What a source may be.
const (
	Regular kind = iota // a regular file
	Device              // a block device
	Stream              // a pipe, socket or character device: read once, in order
)

// Source is an image being read.
type Source struct {
	Name     string // as the caller named it
	File     *os.File
	Kind     kind
	Size     int64 // 0 for a stream
	Stat     unix.Stat_t
	Snapshot *Snapshot // set when File is not the named file but a consistent copy of it
	Release  func()    // of the image lock
}

// Open opens the image for reading only, whatever its kind, and "-" as standard input.
func Open(name string) (*Source, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = OpenFile(name); err != nil {
			return nil, err
		}
	}
	s := &Source{Name: name, File: f, Release: func() {}}
	if err := s.Identify(); err != nil {
		s.Close()
		return nil, err
	}
	if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_CUR); name == "-" && err == nil && at > 0 {
		s.Kind, s.Size = Stream, 0 // somebody has read its beginning; what is left comes in order
	}
	return s, nil
}

// OpenFile does not hang on a FIFO's missing writer before it is known to be one: O_NONBLOCK first.
func OpenFile(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Identify finds out the kind and the size.
func (s *Source) Identify() error {
	if err := unix.Fstat(int(s.File.Fd()), &s.Stat); err != nil {
		return &os.PathError{Op: "stat", Path: s.Name, Err: err}
	}
	switch s.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Kind, s.Size = Regular, s.Stat.Size
	case unix.S_IFBLK:
		size, err := sys.DeviceSize(s.File)
		if err != nil {
			return err
		}
		s.Kind, s.Size = Device, size
	case unix.S_IFDIR:
		return fmt.Errorf("%s is a directory; imgcp copies images: name the files in it", s.Name)
	case unix.S_IFIFO, unix.S_IFSOCK:
		s.Kind = Stream
	default:
		if s.Name == "-" {
			return errors.New("standard input is closed, or a character device; imgcp reads a pipe or a file there")
		}
		return fmt.Errorf("%s is a character device, which has no end; to read a part of it: imgcp dd if=%s count=…", s.Name, s.Name)
	}
	return nil
}

// Admit makes sure that what is read is one consistent image: an idle source is locked against writers while it is
// copied; one that a machine writes to is refused, or replaced by a snapshot of it if the caller chose a way. copyTo is
// the new file that the copy will be; "" if it will be none.
func (s *Source) Admit(ctx context.Context, o *Options, copyTo string) error {
	if t := s.Stat.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFBLK || o.Users == nil {
		return nil
	}
	uses, err := o.Users.InUse(ctx, s.File)
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", s.Name, err)
	}
	if w := writable(uses); len(w) > 0 {
		return s.admitLive(ctx, o, w, copyTo)
	}
	if len(uses) > 0 || o.Locks == nil { // read-only users have locks that allow readers and keep writers out
		return nil
	}
	release, err := o.Locks.Read(s.File)
	switch {
	case errors.Is(err, ErrInUse) && o.Live == nil:
		return &InUseError{Path: s.Name, Hint: liveHint}
	case errors.Is(err, ErrInUse):
		return s.admitLive(ctx, o, nil, copyTo)
	case err != nil:
		return err
	}
	s.Release = release
	return nil
}

const liveHint = "a copy of a disk under writes is torn. Shut the domain down, or choose --live=suspend-reflink, " +
	"--live=backup or (inconsistent!) --live=torn"

func (s *Source) admitLive(ctx context.Context, o *Options, uses []guard.Use, copyTo string) error {
	if o.Live == nil {
		return &InUseError{Path: s.Name, Uses: uses, Hint: liveHint}
	}
	path, err := Resolve(s.Name)
	if err != nil {
		return err
	}
	snap, err := o.Live.Snapshot(ctx, LiveImage{File: s.File, Path: path, Uses: uses, Target: copyTo})
	if err != nil {
		return fmt.Errorf("make a consistent copy of %s: %w", s.Name, err)
	}
	return s.Use(snap)
}

// Use has a snapshot take the place of the image.
func (s *Source) Use(snap *Snapshot) error {
	s.Snapshot = snap
	if snap.File == s.File {
		return nil
	}
	old := s.File
	s.File = snap.File
	defer old.Close()
	stat := s.Stat // owner, mode and times are the image's, not the snapshot's
	if err := s.Identify(); err != nil {
		return err
	}
	stat.Size, stat.Blocks = s.Stat.Size, s.Stat.Blocks
	s.Stat = stat
	return nil
}

// Inspect looks for an image that is empty, or half of one. "The backups were empty" is found out on the day they are
// needed, unless somebody says so on the day they are made.
func (s *Source) Inspect(o *Options) {
	log := o.Log
	s.warnOfOthers(o)
	if s.Kind == Stream {
		return
	}
	if s.Size == 0 {
		log.Warn("this image is empty: is it the right one?", "image", s.Name)
		return
	}
	if c, ok := claim.Of(s.File); ok && c.Bytes > s.Size {
		log.Warn("this image is smaller than its own header says: a part of it is missing", "image", s.Name,
			"bytes", s.Size, "header", c.What, "claims", c.Bytes)
	}
	if s.Kind == Device {
		if err := blockdev.Held(s.File); err != nil {
			log.Warn("this device is in use; what is written to it meanwhile makes the copy torn", "device", s.Name, "why", err)
		}
	}
	if loops, _ := Attached(s.File); len(loops) > 0 {
		log.Warn("this image is attached as a loop device; what is written there meanwhile may be missing in the copy",
			"image", s.Name, "device", strings.Join(loops, ", "))
	}
}

// Data is how much of the image is data, as far as the file system knows without being asked for a map.
func (s *Source) Data() int64 {
	if s.Kind != Regular {
		return s.Size
	}
	return min(s.Size, s.Stat.Blocks*512)
}

// Changed reports that the source was written to while it was copied, which only locks that everybody honours
// would have kept out: a copy of it is torn. Devices have no time of the last write.
func (s *Source) Changed() bool {
	if s.Kind != Regular || s.Snapshot != nil {
		return false
	}
	var now unix.Stat_t
	if unix.Fstat(int(s.File.Fd()), &now) != nil {
		return true
	}
	return now.Size != s.Stat.Size || now.Mtim != s.Stat.Mtim
}

// Close gives up the claim on the image, and what was opened for reading it.
func (s *Source) Close() {
	s.Release()
	if s.Snapshot != nil {
		_ = s.Snapshot.Close() // at worst a hidden file stays, that nothing reads
	}
	if s.File != os.Stdin {
		s.File.Close()
	}
}

// IsMemory recognises the character devices that are memory: /dev/zero, /dev/urandom, /dev/null.
func (s *Source) IsMemory() bool {
	const memory = 1
	return s.Stat.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(s.Stat.Rdev) == memory
}

// Resolve follows symbolic links, so that a copy replaces what a link points to and never the link. A link to nowhere
// is refused: creating files in unexpected places is how /dev fills up.
func Resolve(name string) (string, error) {
	real, err := filepath.EvalSymlinks(name)
	if err == nil {
		return filepath.Abs(real)
	}
	if _, lerr := os.Lstat(name); lerr == nil {
		return "", fmt.Errorf("%s is a symbolic link that leads nowhere: %w", name, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return "", fmt.Errorf("find the directory of %s: %w", name, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(name)), nil
}
