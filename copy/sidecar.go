// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/sys"
	"imgward/copy/manifest"
	"imgward/copy/move"
	"imgward/copy/rescue"
	"imgward/copy/source"
)

// checkSidecars looks at the files that are to be written with the copy before anything is: a manifest or map that took
// the name of an image would destroy it as surely as a copy.
func (c *copier) checkSidecars(to string) error {
	taken := map[string]string{}
	for _, name := range []string{c.src.Name, to} {
		if path, err := source.Resolve(name); err == nil && name != "-" {
			taken[path] = "the image"
		}
	}
	for _, b := range []struct {
		file          *string
		option, magic string
		wanted        bool
	}{
		{&c.opts.Manifest, "--manifest", manifest.Magic, c.opts.Manifest != ""},
		{&c.opts.Map, "--map", rescue.Magic, c.opts.OnError != Stop},
	} {
		if !b.wanted {
			continue
		}
		path, err := source.Resolve(*b.file) // a link leads to what is replaced, as with images
		if err != nil {
			return fmt.Errorf("%s: %w", b.option, err)
		}
		if what := taken[path]; what != "" {
			return fmt.Errorf("%s=%s: that is the name of %s", b.option, *b.file, what)
		}
		taken[path] = b.option
		err = replaceable(path, b.magic)
		if err == nil {
			if err = unix.Access(filepath.Dir(path), unix.W_OK); err != nil {
				err = fmt.Errorf("no file can be made in its directory: %w", err)
			}
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", b.option, *b.file, err)
		}
		*b.file = path
	}
	return nil
}

// replaceable allows a name that is free, and one whose file begins as an earlier one of imgcp does.
func replaceable(path, magic string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().IsRegular() && beginsWith(path, magic) {
		return nil
	}
	return fmt.Errorf("%w, and is no file that imgcp made there earlier: it was left as it is", &dest.ExistsError{Path: path, Sidecar: true})
}

func beginsWith(path, magic string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == magic
}

// writeSidecar writes a small file under a hidden name and gives it its own, both durably. It replaces nothing but an
// earlier file of its kind, whatever came up under that name since it was looked at.
func writeSidecar(path, magic string, write func(io.Writer) error) error {
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
		if err = replaceable(filepath.Join(dir.Name(), name), magic); err == nil {
			err = sys.ReplaceIf(dir, temp, name, func(old string) error { return replaceable(old, magic) })
		}
	}
	if err == nil || errors.Is(err, sys.ErrNotPutBack) {
		return err
	}
	return errors.Join(err, sys.Unlink(dir, temp))
}

// IsManifest reports whether the file at path begins as a manifest does.
func IsManifest(path string) bool { return beginsWith(path, manifest.Magic) }

// writeMap leaves the account with the copy.
func (c *copier) writeMap() error {
	err := writeSidecar(c.opts.Map, rescue.Magic, func(w io.Writer) error { return c.bad.Write(w, c.src.Size) })
	if err != nil {
		return fmt.Errorf("the copy is there, but the map of its unreadable parts could not be written: %w", move.OutOfSpace(err))
	}
	return nil
}
