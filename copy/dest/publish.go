// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// Commit publishes: data first, then the name, then the directory that holds it.
func (t *newFile) Commit(sync bool) error {
	if err := flush(t.f, sync); err != nil {
		return err
	}
	if err := t.publish(); err != nil {
		return move.OutOfSpace(err)
	}
	t.temp = ""
	if !sync {
		return nil
	}
	if err := t.dir.Sync(); err != nil {
		if t.old == nil { // not certain to be there after a power cut: then rather not now either
			return errors.Join(err, sys.Unlink(t.dir, t.name))
		}
		return err
	}
	return nil
}

// flush makes what was written durable, or asks at least whether it went wrong.
func flush(f *os.File, sync bool) error {
	if sync {
		return move.OutOfSpace(f.Sync())
	}
	return move.OutOfSpace(sys.Flush(f))
}

// publish gives the file its name, in one step that the kernel refuses if the name is taken and nothing is to be
// replaced.
func (t *newFile) publish() error {
	if t.old != nil {
		return t.replace()
	}
	var err error
	if t.temp == "" {
		err = sys.LinkNew(t.f, t.dir, t.name)
	} else {
		err = sys.RenameNew(t.dir, t.temp, t.name)
	}
	if errors.Is(err, unix.EEXIST) {
		path := t.path()
		return fmt.Errorf("somebody else created it meanwhile: %w", &ExistsError{Path: path, Next: NextFree(path)})
	}
	return err
}

// replace needs a name to rename from. It makes sure that what it replaces is still what was locked and looked at, and
// that nobody uses it by now: a machine without QEMU's locks may have been started since.
func (t *newFile) replace() error {
	if err := errors.Join(t.old.is(t.path()), t.old.idle(context.Background(), t.opts)); err != nil {
		return err
	}
	if t.temp == "" {
		temp := sys.HiddenName(t.name, "")
		if err := sys.LinkNew(t.f, t.dir, temp); err != nil {
			return err
		}
		t.temp = temp
	}
	err := sys.ReplaceIf(t.dir, t.temp, t.name, t.old.is)
	if errors.Is(err, sys.ErrNotPutBack) {
		t.temp = "" // it is not this copy any more
	}
	return err
}

// is returns an error if path leads to another file than the one that was opened.
func (e *existing) is(path string) error {
	var then, now unix.Stat_t
	if err := unix.Fstat(int(e.f.Fd()), &then); err != nil {
		return &os.PathError{Op: "stat", Path: e.path, Err: err}
	}
	if err := unix.Lstat(path, &now); err != nil || !SameInode(&then, &now) {
		return fmt.Errorf("somebody else replaced %s while the copy was written; their file was left as it is", e.path)
	}
	return nil
}

// scratchFor is a file on the file system of path that nobody else sees. Some FUSE file systems cannot use a file without a
// name, and have none.
func scratchFor(path string, size int64) (*os.File, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, nil
	}
	defer dir.Close()
	f, err := sys.TempFile(dir, path, 0o600)
	if err != nil {
		temp := sys.HiddenName(filepath.Base(path), "")
		if f, err = sys.CreateAt(dir, temp, 0o600); err != nil {
			return nil, nil
		}
		_ = sys.Unlink(dir, temp)
	}
	if err = f.Truncate(size); err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EFBIG) {
		err = fmt.Errorf("%s: a file of %s is larger than its file system or this process's limit (ulimit -f) allows: %w", path, move.Bytes(size), err)
		return nil, err
	}
	if err = move.OutOfSpace(err); errors.Is(err, move.ErrNoSpace) {
		return nil, err
	}
	return nil, nil
}
