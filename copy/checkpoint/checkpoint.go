// SPDX-License-Identifier: Apache-2.0

// Package checkpoint keeps the state of a copy that may have to be resumed: which image went where, and how much of it
// is on the medium.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/rescue"
)

// version of the format. A file of another version is not used, and not overwritten either.
const version = 1

// State is one file.
type State struct {
	Type    string   `json:"type"` // "imgcp-state"
	Version int      `json:"version"`
	Source  Identity `json:"source"`
	Target  Identity `json:"target"`
	// Durable is the offset before which everything is on the target's medium.
	Durable int64 `json:"durable"`
	// Bad are the parts that could not be read.
	Bad []rescue.Range `json:"bad,omitempty"`
}

// Identity distinguishes one image from another, and from itself after somebody wrote to it.
type Identity struct {
	Path  string `json:"path"` // for people
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Rdev  uint64 `json:"rdev,omitempty"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime_ns,omitempty"` // of a source; writing the copy changes its own
	// Disk and Writes are for a block device, which has no times (sys.Disk).
	Disk   string `json:"disk,omitempty"`
	Writes string `json:"writes,omitempty"`
}

// Identify describes what st is; size is given apart, for a block device's is not in st.
func Identify(path string, st *unix.Stat_t, size int64) Identity {
	id := Identity{Path: path, Size: size}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK { // the node's own inode changes at every boot
		id.Rdev = st.Rdev
		id.Disk, id.Writes = sys.Disk(st.Rdev)
		return id
	}
	id.Dev, id.Ino, id.MTime = st.Dev, st.Ino, st.Mtim.Nano()
	return id
}

// Same returns an error that says what has changed since i was written; the path may have.
func (i Identity) Same(now Identity) error {
	switch {
	case i.Dev != now.Dev || i.Ino != now.Ino || i.Rdev != now.Rdev:
		return errors.New("it is another file")
	case i.Size != now.Size:
		return fmt.Errorf("its size was %d and is %d", i.Size, now.Size)
	case i.MTime != now.MTime:
		return errors.New("it has been written to")
	}
	return nil
}

// SameDisk reports whether a block device that is the Same certainly leads to the disk that it led to. A file does.
func (i Identity) SameDisk(now Identity) bool {
	return i.Rdev == 0 || i.Disk != "" && i.Disk == now.Disk
}

// Unwritten reports whether a block device that is the Same certainly holds what it held: this host has not written to it.
// Of a file, Same has said that.
func (i Identity) Unwritten(now Identity) bool {
	return i.Rdev == 0 || i.SameDisk(now) && i.Writes != "" && i.Writes == now.Writes
}

// ErrVersion says that the file was written by another version of imgcp.
var ErrVersion = errors.New("written by another version of imgcp")

// maxSize is far more than a state with thousands of bad ranges needs.
const maxSize = 16 << 20

// Parse reads a state. Everything in it is checked for sense: the file may be cut off, or anybody's.
func Parse(b []byte) (State, error) {
	var s State
	if len(b) > maxSize {
		return State{}, fmt.Errorf("no state of imgcp has %d bytes", len(b))
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, err
	}
	switch {
	case s.Type != "imgcp-state":
		return State{}, errors.New("not a state of imgcp")
	case s.Version != version:
		return State{}, ErrVersion
	case s.Source.Size < 0 || s.Durable < 0 || s.Durable > s.Source.Size:
		return State{}, fmt.Errorf("%d of %d bytes cannot have been copied", s.Durable, s.Source.Size)
	}
	for _, r := range s.Bad {
		if r.Off < 0 || r.Len <= 0 || r.Len > s.Source.Size || r.Off > s.Source.Size-r.Len {
			return State{}, fmt.Errorf("bad range at %d of %d bytes is outside the image", r.Off, r.Len)
		}
	}
	return s, nil
}

// ErrNoFile says that what has the state's name is no regular file, and not imgcp's.
var ErrNoFile = errors.New("not a regular file")

// Load reads the state at path. The error is fs.ErrNotExist if there is none. Where others may write to the directory there
// may be anything: a FIFO does not hang us, nor a link lead elsewhere.
func Load(path string) (State, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) {
		err = ErrNoFile
	}
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return State{}, errors.Join(fmt.Errorf("%s: %w", path, ErrNoFile), err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return State{}, err
	}
	s, err := Parse(b)
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Save replaces the state at path, durably: after a crash the old one or the new one is there.
func (s State) Save(path string) error {
	s.Type, s.Version = "imgcp-state", version
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return sys.ReplaceFile(path, append(b, '\n'))
}
