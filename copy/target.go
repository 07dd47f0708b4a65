package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// target is where an image goes. Each implementation is one file: fresh, inplace, device, pipe.
type target interface {
	// file is what is written to; nil for a pipe, which is written in order through writer.
	file() *os.File
	// prepare makes room for an image of size bytes. It is the first call that changes anything; whatever speaks
	// against the copy has been looked for before. need tells how many bytes will be allocated at most; it costs a walk
	// over the source and is asked only where size itself would not fit. Too little room is ErrNoSpace. What an earlier
	// copy left is kept if resumes says so, and emptied otherwise.
	prepare(size int64, need func() (int64, error), resumes func(*os.File) bool) error
	// statePath is where the state of a resumable copy is kept; "" if it cannot be resumed.
	statePath() string
	// scratch returns an empty file for trying out what the target's file system can do, which is gone when it is
	// closed; nil if there is no way to have one.
	scratch() *os.File
	// blank reports whether everything that has not been written since prepare reads as zeroes.
	blank() bool
	// commit makes the image visible under its final name, durable if sync is set. After an error nothing of it is
	// visible, as far as the kind of target allows, and abandon is still to be called.
	commit(sync bool) error
	// abandon releases locks and descriptors, and removes what was not committed unless it is to be resumed. It may
	// follow commit.
	abandon(resumable bool)
}

// openTarget chooses the kind of target for name and does every check that needs no more than looking: existing,
// in use, too small, read-only, mounted. It changes nothing that exists.
func openTarget(ctx context.Context, name string, src *source, o *Options) (target, error) {
	if name == "-" {
		return openPipe(os.Stdout)
	}
	path, err := resolve(name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if err == nil {
		if err := overlap(src, name, &st); err != nil {
			return nil, err
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := onSource(src, path); err != nil {
			return nil, err
		}
		return newFresh(path, nil, src, o)
	case err != nil:
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return openDevice(ctx, path, src, o)
	case unix.S_IFREG:
		return openExisting(ctx, path, src, o)
	case unix.S_IFIFO, unix.S_IFCHR:
		return openPipePath(path)
	case unix.S_IFDIR:
		return nil, fmt.Errorf("%s is a directory; name the file in it", name)
	}
	return nil, fmt.Errorf("%s is neither a file nor a block device", name)
}

// resolve follows symbolic links, so that a copy replaces what a link points to and never the link. A link to nowhere
// is refused: creating files in unexpected places is how /dev fills up.
func resolve(name string) (string, error) {
	real, err := filepath.EvalSymlinks(name)
	if err == nil {
		return filepath.Abs(real)
	}
	if _, lerr := os.Lstat(name); lerr == nil {
		return "", fmt.Errorf("%s is a symbolic link that leads nowhere: %w", name, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return "", fmt.Errorf("directory of %s: %w", name, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(name)), nil
}
