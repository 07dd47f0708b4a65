// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"os"
	"path/filepath"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// inplace is an existing file that is written into: the inode stays, its old contents go at once.
type inplace struct {
	*existing
	opts *Options
}

// OpenInPlace looks at the file from every side; it changes nothing.
func OpenInPlace(ctx context.Context, path string, o *Options) (Target, error) {
	e, err := seize(ctx, path, 0, o)
	if err != nil {
		return nil, err
	}
	return &inplace{existing: e, opts: o}, nil
}

func (t *inplace) Blank() bool { return true }

func (t *inplace) Earlier() (*os.File, error) { return t.f, nil }

// Room counts the old blocks as free space. It asks the file system what else Prepare could be refused.
func (t *inplace) Room(size int64, need func() (int64, error)) error {
	if err := possible(t.path, size, t.opts.Preallocate); err != nil {
		return err
	}
	return checkSpace(t.f, size, need, move.Allocated(t.f))
}

// Prepare gives the old blocks back.
func (t *inplace) Prepare(size, keep int64) error {
	if err := t.f.Truncate(keep); err != nil {
		return err
	}
	return move.OutOfSpace(makeRoom(t.f, size, t.opts.Preallocate))
}

func (t *inplace) Commit(sync bool) error {
	return flush(t.f, sync)
}

func (t *inplace) StatePath() string {
	return filepath.Join(filepath.Dir(t.path), sys.HiddenName(filepath.Base(t.path), "state"))
}

func (t *inplace) Scratch(size int64) (*os.File, error) { return scratchFor(t.path, size) }

func (t *inplace) Abandon(bool) { t.Close() }
