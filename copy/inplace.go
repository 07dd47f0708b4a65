package imgcopy

// inplace is an existing file that is written into: the inode stays, its old contents go at once.
type inplace struct {
	*existing
}

func (t *inplace) blank() bool { return true }

// prepare gives the old blocks back first, so that they count as free space, and makes the whole file one hole.
func (t *inplace) prepare(size int64, need func() (int64, error)) error {
	if err := t.f.Truncate(0); err != nil {
		return err
	}
	if err := checkSpace(t.f, size, need); err != nil {
		return err
	}
	return outOfSpace(t.f.Truncate(size))
}

func (t *inplace) commit(sync bool) error {
	if !sync {
		return nil
	}
	return outOfSpace(t.f.Sync())
}

func (t *inplace) abandon() { t.close() }
