// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dir names a directory of status files.
type Dir struct {
	Path   string // may be a glob pattern (filepath.Match) for the directories of many users
	Driver string // what Domain.Driver is to say
	// Session marks directories that belong to ordinary users, who may write into them what they like: Domain.Session
	// is set, and what cannot be read there makes no blind domain.
	Session bool
}

// Config is what an Index reads.
type Config struct {
	Dirs     []Dir
	PoolDirs []string // see Pools
	Files    Kind     // what is in Dirs
}

// Index is what all status files say, kept by name. Only MarkStale and MarkAllStale may be called concurrently with the
// other methods; the caller orders the rest.
type Index struct {
	config Config
	scan   scanner
	dirs   map[string]*dir // by path
	globs  bool            // some of config.Dirs are patterns

	staleMu sync.Mutex // held for nothing but the marks
	stale   marks
}

// marks says what is to be read again although its stamp, or its directory's, shows no change.
type marks struct {
	files map[string]map[string]bool // by directory and name
	all   bool                       // look at every file's stamp
}

func (m *marks) add(path string) {
	if m.files == nil {
		m.files = make(map[string]map[string]bool)
	}
	dir := filepath.Dir(path)
	if m.files[dir] == nil {
		m.files[dir] = make(map[string]bool)
	}
	m.files[dir][filepath.Base(path)] = true
}

func (m *marks) addAll(o *marks) {
	for dir, names := range o.files {
		for name := range names {
			m.add(filepath.Join(dir, name))
		}
	}
	m.all = m.all || o.all
}

// concerns says whether anything in a directory is marked.
func (m *marks) concerns(d *dir) bool { return m.all || m.files[d.path] != nil }

// Change is one status file that came, changed, or went.
type Change struct {
	Path   string  // of the status file; the key of its domain
	Domain *Domain // nil: there is no such domain any more
	Err    error   // why the file cannot be read: Domain is then what is known from before, or blind
}

// Problem is a status file or directory that could not be made sense of.
type Problem struct {
	Path string
	Err  error
	// Blind is set where nothing is known from before, so that every image counts as in use.
	Blind bool
}

// New makes an index of nothing; Refresh fills it.
func New(c Config) *Index {
	return &Index{
		config: c,
		scan: scanner{
			kind: kinds[c.Files], volumes: Pools{Dirs: c.PoolDirs}.Path, workers: runtime.GOMAXPROCS(0),
			lenient: os.Geteuid() != 0,
		},
		dirs: make(map[string]*dir), globs: slices.ContainsFunc(c.Dirs, func(d Dir) bool { return isGlob(d.Path) }),
	}
}

func isGlob(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// Refresh brings the index up to date with the directories as they are now, and returns what changed. A directory that
// does not answer counts as one that cannot be read, until it does. The error is ctx's; what had been read until then is
// returned with it.
func (x *Index) Refresh(ctx context.Context) ([]Change, error) {
	stale := x.takeStale()
	dirs := x.expand()
	changes := x.collect(ctx, dirs) // what was begun for an earlier question may be older than this one
	var look look
	for _, d := range dirs {
		x.begin(d, &stale, &look)
	}
	return append(changes, x.collect(ctx, dirs)...), ctx.Err()
}

// blindness is the change from a directory that can be read to one that cannot, or back: while it cannot, a domain may
// start that nobody sees, and one blind domain stands for that.
func (x *Index) blindness(d *dir) (Change, bool) {
	if d.reading != nil && !d.late {
		return Change{}, false // the question was given up
	}
	err := d.fault()
	blind := err != nil && !d.kind.Session && !x.scan.optional && !(x.scan.lenient && os.IsPermission(err))
	if blind == d.blind {
		return Change{}, false
	}
	d.blind = blind
	if !blind {
		return Change{Path: d.path}, true
	}
	return Change{Path: d.path, Domain: &Domain{Driver: d.kind.Driver, Written: time.Now(), Blind: true}, Err: err}, true
}

// expand lists the directories that exist or existed, globs expanded.
func (x *Index) expand() []*dir {
	var all []*dir
	for _, c := range x.config.Dirs {
		paths := []string{c.Path}
		if isGlob(c.Path) {
			if found, _ := filepath.Glob(c.Path); len(found) > 0 {
				paths = found
			}
		}
		for _, p := range paths {
			if x.dirs[p] == nil {
				x.dirs[p] = &dir{path: p, kind: c, files: make(map[string]*file)}
			}
		}
	}
	for _, d := range x.dirs { // also those whose user has gone meanwhile, to notice just that
		all = append(all, d)
	}
	return all
}

// Dirs are the paths of the directories, for a Watcher.
func (x *Index) Dirs() []string {
	var paths []string
	for p, d := range x.dirs {
		if !d.late { // or whoever looks at it would hang
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// MarkStale makes the next Refresh read a file again whose stamp does not show a change: an edit in place, which
// libvirt never makes, but a person might. It may be called at any time.
func (x *Index) MarkStale(path string) {
	x.staleMu.Lock()
	defer x.staleMu.Unlock()
	x.stale.add(path)
}

// MarkAllStale makes the next Refresh look at the stamp of every file, also in directories that show no change. It may
// be called at any time.
func (x *Index) MarkAllStale() {
	x.staleMu.Lock()
	defer x.staleMu.Unlock()
	x.stale.all = true
}

func (x *Index) takeStale() marks {
	x.staleMu.Lock()
	defer x.staleMu.Unlock()
	taken := x.stale
	x.stale = marks{}
	return taken
}

// Problems lists what could not be read.
func (x *Index) Problems() []Problem {
	var all []Problem
	for _, d := range x.dirs {
		if err := d.fault(); err != nil {
			all = append(all, Problem{Path: d.path, Err: err, Blind: d.blind})
		}
		if d.reading != nil {
			continue
		}
		for name, f := range d.files {
			if f.err != nil && !errors.Is(f.err, ErrUnfinished) {
				all = append(all, Problem{Path: d.file(name), Err: f.err, Blind: f.domain != nil && f.domain.Blind && f.domain.PID == 0})
			}
		}
	}
	return all
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

func (d *dir) change(name string, f *file) Change {
	c := Change{Path: d.file(name)}
	if f != nil {
		c.Domain = f.domain
		if !errors.Is(f.err, ErrUnfinished) {
			c.Err = f.err
		}
	}
	return c
}
