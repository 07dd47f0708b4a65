// SPDX-License-Identifier: Apache-2.0

// Package dest is where an image goes: what may be overwritten, what room there is, and how the copy becomes visible.
package dest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
)

// Target is a file or block device that an image goes to. Each kind is one file: newfile, inplace, device. A Pipe is none.
type Target interface {
	// File is what is written to; nil before Prepare if it is new.
	File() *os.File
	// Earlier returns the file in which an earlier copy may have left something to go on with; nil if there is none. It
	// stays the target's.
	Earlier() (*os.File, error)
	// Room refuses an image of size bytes that does not fit (ErrNoSpace), and changes nothing. need says how many bytes
	// will be allocated at most; it costs a walk over the source and is asked only where size itself would not fit.
	Room(size int64, need func() (int64, error)) error
	// Prepare makes the image size bytes long. It is the first call that changes anything; whatever speaks against the
	// copy has been looked for before. Of what an earlier copy left the first keep bytes stay. Whatever follows is
	// unknown, and is cut off a file.
	Prepare(size, keep int64) error
	// StatePath is where the state of a resumable copy is kept; "" if it cannot be resumed.
	StatePath() string
	// Scratch returns a file of size bytes, all hole, for trying out what the target's file system can do, which is gone
	// when it is closed; nil if there is no way to have one. It fails where no file may be that large.
	Scratch(size int64) (*os.File, error)
	// Blank reports whether everything that has not been written since Prepare reads as zeroes.
	Blank() bool
	// Commit makes the image visible under its final name, durable if sync is set. After an error nothing of it is
	// visible, as far as the kind of target allows, and Abandon is still to be called.
	Commit(sync bool) error
	// Abandon releases locks and descriptors, and removes what was not committed unless it is to be resumed. It may
	// follow Commit.
	Abandon(resumable bool)
}

// Open chooses the kind of target for name and does every check that needs no more than looking: existing,
// in use, too small, read-only, mounted. It changes nothing that exists.
func Open(ctx context.Context, name string, src *source.Source, o *Options) (Target, error) {
	path, err := source.Resolve(name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if err == nil {
		if err := Overlap(src, name, &st); err != nil {
			return nil, err
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := onSource(src, path); err != nil {
			return nil, err
		}
		return NewFile(path, permOf(src), nil, o)
	case err != nil:
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return OpenDevice(ctx, path, src.Size, o)
	case unix.S_IFREG:
		return openExisting(ctx, path, src, o)
	case unix.S_IFDIR:
		return nil, fmt.Errorf("%s is a directory; name the file in it", name)
	}
	return nil, fmt.Errorf("%s is neither a file nor a block device", name)
}

// NewName is the name of the new file that a target will be; "" if it writes into something that is there.
func NewName(t Target) string {
	if t, ok := t.(*newFile); ok {
		return t.path()
	}
	return ""
}
