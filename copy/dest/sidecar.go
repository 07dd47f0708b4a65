// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// Sidecar is a small file that is to be written beside an image: a manifest, a map of bad sectors.
type Sidecar struct {
	Path   *string
	Option string // that asks for it
	Magic  string // how every file of its kind begins
}

// CheckSidecars looks at the files that are to be written with a copy before anything is: one that took the name of an image
// would destroy it as surely as a copy. Each Path becomes that of what its links lead to. images are the names of the copy's two ends.
func CheckSidecars(files []Sidecar, images ...string) error {
	taken := map[string]string{}
	for _, name := range images {
		if path, err := source.Resolve(name); err == nil && name != "-" {
			taken[path] = "the image"
		}
	}
	for _, s := range files {
		path, err := source.Resolve(*s.Path) // a link leads to what is replaced, as with images
		if err != nil {
			return fmt.Errorf("%s: %w", s.Option, err)
		}
		if what := taken[path]; what != "" {
			return fmt.Errorf("%s=%s: that is the name of %s", s.Option, *s.Path, what)
		}
		taken[path] = s.Option
		err = replaceable(path, path, s.Magic)
		if err == nil {
			if err = unix.Access(filepath.Dir(path), unix.W_OK); err != nil {
				err = fmt.Errorf("no file can be made in its directory: %w", err)
			}
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", s.Option, *s.Path, err)
		}
		*s.Path = path
	}
	return nil
}

// replaceable allows a name that is free, and one whose file, which is now at another place, begins as an earlier one of imgcp does.
func replaceable(path, now, magic string) error {
	st, err := os.Lstat(now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().IsRegular() && BeginsWith(now, magic) {
		return nil
	}
	return fmt.Errorf("%w, and is no file that imgcp made there earlier: it was left as it is", &ExistsError{Path: path, Sidecar: true})
}

// BeginsWith reports whether the file at path has this magic. A pipe has none, and is not waited for.
func BeginsWith(path, magic string) bool {
	f, err := source.OpenFile(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if !move.IsRegular(f) {
		return false
	}
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == magic
}

// WriteSidecar writes a small file under a hidden name and gives it its own, both durably. It replaces nothing but an
// earlier file of its kind, whatever came up under that name since it was looked at.
func WriteSidecar(path, magic string, write func(io.Writer) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.CreateTemp(dir.Name(), sys.HiddenName(filepath.Base(path), "*"))
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := nameSidecar(dir, filepath.Base(f.Name()), filepath.Base(path), magic); err != nil {
		return err
	}
	return dir.Sync()
}

// nameSidecar renames, or removes temp. Where the name is taken it looks first, and then once more at what it got for it: that is put back
// if it is something else by now. Nobody can come between the two, as between a look and a rename.
func nameSidecar(dir *os.File, temp, name, magic string) error {
	err := sys.RenameNew(dir, temp, name)
	if errors.Is(err, fs.ErrExist) {
		path := filepath.Join(dir.Name(), name)
		if err = replaceable(path, path, magic); err == nil {
			err = sys.ReplaceIf(dir, temp, name, func(now string) error { return replaceable(path, now, magic) })
		}
	}
	if err == nil || errors.Is(err, sys.ErrNotPutBack) {
		return err
	}
	return errors.Join(err, sys.Unlink(dir, temp))
}
