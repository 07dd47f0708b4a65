package imgcopy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"imgward/copy/manifest"
	"imgward/copy/rescue"
)

// checkBeside looks at the files that are to be written beside the copy before anything is: a manifest or map that took
// the name of an image would destroy it as surely as a copy.
func (c *copier) checkBeside(to string) error {
	taken := map[string]string{}
	for _, name := range []string{c.src.name, to} {
		if path, err := resolve(name); err == nil && name != "-" {
			taken[path] = "the image"
		}
	}
	for _, b := range []struct {
		path, option, magic string
		wanted              bool
	}{
		{c.opts.Manifest, "--manifest", manifest.Magic, c.opts.Manifest != ""},
		{c.opts.Map, "--map", rescue.Magic, c.opts.OnError != Stop},
	} {
		if !b.wanted {
			continue
		}
		path, err := resolve(b.path)
		if err != nil {
			return fmt.Errorf("%s: %w", b.option, err)
		}
		if what := taken[path]; what != "" {
			return fmt.Errorf("%s=%s: that is the name of %s", b.option, b.path, what)
		}
		taken[path] = b.option
		if err := replaceable(path, b.magic); err != nil {
			return fmt.Errorf("%s=%s: %w", b.option, b.path, err)
		}
	}
	return nil
}

// replaceable allows a name that is free, and one whose file begins as an earlier one of ours does.
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
	return fmt.Errorf("%w, and is no file that imgcp made there earlier: it was left as it is", &ExistsError{Path: path, Beside: true})
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

// replaceFile writes a small file beside its name and gives it the name, both durably.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), hiddenName(filepath.Base(path), "*"))
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// IsManifest reports whether the file at path begins as a manifest does.
func IsManifest(path string) bool { return beginsWith(path, manifest.Magic) }
