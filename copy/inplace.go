package imgcopy

import (
	"os"
	"path/filepath"
)

// inplace is an existing file that is written into: the inode stays, its old contents go at once.
type inplace struct {
	*existing
	opts *Options
}

func (t *inplace) blank() bool { return true }

// prepare gives the old blocks back first, so that they count as free space, and makes the whole file one hole.
func (t *inplace) prepare(size int64, need func() (int64, error), resumes func(*os.File) bool) error {
	if !resumes(t.f) {
		if err := t.f.Truncate(0); err != nil {
			return err
		}
	}
	if err := checkSpace(t.f, size, need, allocated(t.f)); err != nil {
		return err
	}
	return outOfSpace(makeRoom(t.f, size, t.opts.Preallocate))
}

func (t *inplace) commit(sync bool) error {
	return settleData(t.f, sync)
}

func (t *inplace) statePath() string {
	return filepath.Join(filepath.Dir(t.path), hiddenName(filepath.Base(t.path), "state"))
}

func (t *inplace) scratch() *os.File { return scratchBeside(t.path) }

func (t *inplace) abandon(bool) { t.close() }
