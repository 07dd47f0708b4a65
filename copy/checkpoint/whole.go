// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// A copy of several files has its own state for each that is whole, next to it, until all of them are.

func wholePath(to string) string {
	return filepath.Join(filepath.Dir(to), sys.HiddenName(filepath.Base(to), "done"))
}

// NoteWhole remembers that the file to is a whole copy of from.
func NoteWhole(from, to string) error {
	s, err := ends(from, to)
	if err != nil {
		return err
	}
	return s.Save(wholePath(to))
}

// Whole reports whether an earlier run has made to a whole copy of from, and neither has changed since.
func Whole(from, to string) bool {
	was, err := Load(wholePath(to))
	if err != nil {
		return false
	}
	now, err := ends(from, to)
	return err == nil && was.Source.Same(now.Source) == nil && was.Source.Unwritten(now.Source) && was.Target.Same(now.Target) == nil
}

// ForgetWhole removes what NoteWhole left.
func ForgetWhole(to string) error {
	if err := os.Remove(wholePath(to)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func ends(from, to string) (s State, err error) {
	for path, id := range map[string]*Identity{from: &s.Source, to: &s.Target} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return s, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		*id = Identify(path, &st, st.Size)
	}
	s.Durable = s.Source.Size
	return s, nil
}
