// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
	"imgward/fs/mounttable"
)

// ErrNoView says that a path is not inside any view.
var ErrNoView = errors.New("not inside an imgward view")

// ErrBeside says that a path goes past the view that stands on it: by a working directory from before the mount.
var ErrBeside = errors.New("bypasses the view")

// Place is where a view of this host is.
type Place struct {
	// Name is the mountpoint that the view was mounted on: what its daemon is asked by.
	Name string
	Dev  uint64            // its st_dev
	At   *mounttable.Mount // where it is now, which is elsewhere after `mount --move`; nil: not mounted in this namespace
}

// Places lists the views that have a daemon's runtime directory: those that are mounted here, and those that were, as long
// as their daemon serves those who hold files of them.
func Places() ([]Place, error) {
	entries, t, err := look()
	if err != nil {
		return nil, err
	}
	var list []Place
	for _, e := range entries {
		if p, ok := placeOf(filepath.Join(RunDir, e.Name()), t); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// look lists what is in RunDir, and reads the mount table.
func look() ([]os.DirEntry, *mounttable.Table, error) {
	entries, err := os.ReadDir(RunDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	t, err := mounttable.Now()
	return entries, t, err
}

// placeOf reads a runtime directory; false if it is just being made, or removed, or was left behind.
func placeOf(dir string, t *mounttable.Table) (p Place, ok bool) {
	name, err := os.ReadFile(filepath.Join(dir, mountpointFile))
	if err != nil {
		return p, false
	}
	p.Name = string(name)
	dev, err := os.ReadFile(filepath.Join(dir, deviceFile))
	if err == nil {
		p.Dev, err = strconv.ParseUint(string(dev), 10, 64)
	}
	switch {
	case err != nil: // not served yet
		p.At = t.Topmost(p.Name)
		return p, p.At != nil && p.At.FSType == viewfs.FSType
	case locked(dir):
		p.At = t.Find(p.Dev, p.Name)
		return p, true
	}
	// Nobody serves it. If it is not where it was, the number of its device may be another view's by now.
	at := t.Topmost(p.Name)
	if at == nil || at.FSType != viewfs.FSType || mounttable.Device(at) != p.Dev {
		return p, false
	}
	p.At = at
	return p, true
}

// locked says whether a daemon lives.
func locked(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// Views lists the names of the views of this host, by which their daemons are asked.
func Views() ([]string, error) {
	places, err := Places()
	var list []string
	for _, p := range places {
		list = append(list, p.Name)
	}
	return list, err
}

// Find tells which view a path is in, through whatever mount of it, and where. ErrNoView: it is in none. ErrBeside: it would
// be in that one, but what it opens for this process is the file below.
func Find(name string) (view, rel string, err error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", "", err
	}
	t, err := mounttable.Now()
	if err != nil {
		return "", "", err
	}
	m := t.At(path)
	if m == nil || m.FSType != viewfs.FSType {
		return "", "", fmt.Errorf("%s: %w", path, ErrNoView)
	}
	places, err := Places()
	if err != nil {
		return "", "", err
	}
	for _, p := range places {
		if p.At != nil && mounttable.Device(p.At) == mounttable.Device(m) {
			return p.Name, strings.TrimPrefix(mounttable.Inside(m, path), "/"), beside(name, m)
		}
	}
	return "", "", fmt.Errorf("%s is in a view without a daemon that answers here: %w", path, ErrNoView)
}

// beside compares what a path opens with the view that stands there.
func beside(name string, view *mounttable.Mount) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Dev == mounttable.Device(view) {
		return nil
	}
	return fmt.Errorf("%s: this path %w on %s and is not protected: this shell was in the directory before the view was mounted (cd . and try again)",
		name, ErrBeside, view.Mountpoint)
}

// Named tells which view is mounted on a directory, or was when its daemon was started. ErrNoView: none.
func Named(dir string) (Place, error) {
	places, err := Places()
	if err != nil {
		return Place{}, err
	}
	for _, here := range []func(*Place) bool{
		func(p *Place) bool { return p.At != nil && p.At.Mountpoint == dir },
		func(p *Place) bool { return p.Name == dir },
	} {
		for i := range places {
			if here(&places[i]) {
				return places[i], nil
			}
		}
	}
	return Place{}, fmt.Errorf("%s: %w", dir, ErrNoView)
}
