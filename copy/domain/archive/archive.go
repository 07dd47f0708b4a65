// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	tempName = Name + ".new"
	lockName = ".lock"
	// maxManifest is some ten times what maxFiles take.
	maxManifest = 256 << 20
)

// Archive is one domain's directory. Every name is resolved below it, symbolic links included.
type Archive struct {
	Dir  string
	root *os.Root
	lock *os.File // of whoever writes

	mu sync.Mutex
	m  Manifest
}

// Create makes DEST/NAME for a new copy, and locks it. An error is fs.ErrExist if there is a copy already, and ErrBusy if
// somebody else makes one just now. The directory may be searched by all, as QEMU must, and is listed by root alone.
func Create(dest, domain string) (*Archive, error) {
	a, err := directory(dest, domain)
	if err != nil {
		return nil, err
	}
	if _, err := a.root.Lstat(Name); !errors.Is(err, fs.ErrNotExist) {
		a.Close()
		if err == nil {
			err = fs.ErrExist
		}
		return nil, fmt.Errorf("%s has a copy already: %w", a.Dir, err)
	}
	return a, nil
}

// Resume opens DEST/NAME to go on with the copy that is there, and locks it. The error is ErrNone if there is none.
func Resume(dest, domain string) (*Archive, error) {
	a, err := directory(dest, domain)
	if err == nil {
		if err = a.load(); err != nil {
			a.Close()
		}
	}
	return a, err
}

// directory makes the directory if need be, and locks it.
func directory(dest, domain string) (*Archive, error) {
	if !ValidPath(domain) || path.Base(domain) != domain {
		return nil, fmt.Errorf("a domain named %q cannot have a directory of its own", domain)
	}
	dir := filepath.Join(dest, domain)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	a, err := at(dir)
	if err != nil {
		return nil, err
	}
	if a.lock, err = a.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err == nil {
		if err = unix.Flock(int(a.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return a, nil
}

func at(dir string) (*Archive, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Archive{Dir: dir, root: root}, nil
}

// Open opens a copy for reading. Errors are ErrNone, ErrVersion, or say what is wrong with the manifest.
func Open(dir string) (*Archive, error) {
	a, err := at(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Close gives up the lock; the files stay.
func (a *Archive) Close() error {
	var err error
	if a.lock != nil {
		err = a.lock.Close()
	}
	return errors.Join(err, a.root.Close())
}

// List returns the directories of the copies at dest, which may be one itself.
func List(dest string) ([]string, error) {
	if _, err := os.Lstat(filepath.Join(dest, Name)); err == nil {
		return []string{dest}, nil
	}
	entries, err := os.ReadDir(dest)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dest, e.Name(), Name)); err == nil && e.IsDir() {
			dirs = append(dirs, filepath.Join(dest, e.Name()))
		}
	}
	return dirs, nil
}

func (a *Archive) load() error {
	f, err := a.Open(Name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", a.Dir, ErrNone)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil {
		a.m, err = Parse(b)
	}
	if err != nil {
		return fmt.Errorf("%s/%s: %w", a.Dir, Name, err)
	}
	return nil
}

// Parse reads a manifest from anybody.
func Parse(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return m, fmt.Errorf("no manifest of imgcp has more than %d MiB", maxManifest>>20)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("not a manifest of imgcp: %w", err)
	}
	switch {
	case m.Type != manifestType:
		return Manifest{}, errors.New("not a manifest of imgcp")
	case m.Version != Version:
		return Manifest{}, fmt.Errorf("version %d: %w", m.Version, ErrVersion)
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, fmt.Errorf("damaged: %w", err)
	}
	return m, nil
}

const manifestType = "imgcp-domain"

// Manifest returns a copy of the manifest as it is now.
func (a *Archive) Manifest() Manifest {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.m
	m.Files = append([]File(nil), a.m.Files...)
	m.Omitted = append([]Omission(nil), a.m.Omitted...)
	return m
}

// Update has change alter the manifest, and replaces it durably: after a crash the old or the new one is there. What it says
// of files must be on the medium before. It may be called by several goroutines.
func (a *Archive) Update(change func(*Manifest)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.m)
	a.m.Type, a.m.Version = manifestType, Version
	if err := a.m.Validate(); err != nil {
		return fmt.Errorf("%s: %w", a.Dir, err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&a.m); err != nil {
		return err
	}
	return a.replace(Name, tempName, b.Bytes())
}

// WriteFile puts a small file into the copy, durably, in the place of one that is there.
func (a *Archive) WriteFile(name string, b []byte) error {
	if !ValidPath(name) {
		return fmt.Errorf("%q is no name of a file of the copy", name)
	}
	if err := a.MkdirFor(name); err != nil {
		return err
	}
	return a.replace(name, name+".new", b)
}

// Create makes a file of the copy, anew if it is there already.
func (a *Archive) Create(name string) (*os.File, error) {
	if !ValidPath(name) {
		return nil, fmt.Errorf("%q is no name of a file of the copy", name)
	}
	if err := errors.Join(a.MkdirFor(name), a.Remove(name)); err != nil {
		return nil, err
	}
	return a.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// MkdirFor makes the directories above a file.
func (a *Archive) MkdirFor(name string) error {
	if dir := path.Dir(name); dir != "." {
		return a.root.MkdirAll(dir, 0o711)
	}
	return nil
}

func (a *Archive) replace(name, temp string, b []byte) error {
	if err := a.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := a.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = a.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, a.root.Remove(temp))
	}
	return a.syncDir(path.Dir(name))
}

func (a *Archive) syncDir(name string) error {
	d, err := a.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ErrIrregular says that what has the name is no regular file.
var ErrIrregular = errors.New("not a regular file")

// Open opens a file of the copy for reading. No symbolic link leads out of the directory, and no FIFO hangs the caller.
func (a *Archive) Open(name string) (*os.File, error) {
	return a.open(name, os.O_RDONLY)
}

// OpenRW opens a file of the copy for reading and writing.
func (a *Archive) OpenRW(name string) (*os.File, error) { return a.open(name, os.O_RDWR) }

func (a *Archive) open(name string, flags int) (*os.File, error) {
	f, err := a.root.OpenFile(name, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Dir, err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%s/%s: %w", a.Dir, name, ErrIrregular), err)
	}
	return f, nil
}

// Path is where a file of the copy is, for those who open it by name.
func (a *Archive) Path(name string) string { return filepath.Join(a.Dir, filepath.FromSlash(name)) }

// Remove removes a file of the copy; one that is not there is no error.
func (a *Archive) Remove(name string) error {
	if err := a.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
