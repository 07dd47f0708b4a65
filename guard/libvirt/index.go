package libvirt

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
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
	// Definitions makes it an index of persistent domains' files instead.
	Definitions bool
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
	files map[string]bool // by path
	dirs  map[string]bool // the directories of these
	all   bool            // look at every file's stamp
}

func (m *marks) add(path string) {
	if m.files == nil {
		m.files, m.dirs = make(map[string]bool), make(map[string]bool)
	}
	m.files[path], m.dirs[filepath.Dir(path)] = true, true
}

func (m *marks) has(d *dir, name string) bool { return m.dirs[d.path] && m.files[d.file(name)] }

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
	parse := Parse
	if c.Definitions {
		parse = ParseDefinition
	}
	return &Index{
		config: c,
		scan: scanner{
			parse: parse, volumes: Pools{Dirs: c.PoolDirs}.Path, workers: runtime.GOMAXPROCS(0),
			lenient: os.Geteuid() != 0,
		},
		dirs: make(map[string]*dir), globs: slices.ContainsFunc(c.Dirs, func(d Dir) bool { return isGlob(d.Path) }),
	}
}

func isGlob(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// Current says, by one system call for each directory, that a Refresh would find nothing new.
func (x *Index) Current() bool {
	x.staleMu.Lock()
	stale := x.stale.all || len(x.stale.files) > 0
	x.staleMu.Unlock()
	if stale || x.globs || len(x.dirs) < len(x.config.Dirs) {
		return false
	}
	for _, d := range x.dirs {
		if !d.current() {
			return false
		}
	}
	return true
}

// Refresh brings the index up to date with the directories as they are now, and returns what changed. The error is
// ctx's; what had been read until then is returned with it.
func (x *Index) Refresh(ctx context.Context) ([]Change, error) {
	var changes []Change
	stale := x.takeStale()
	for _, d := range x.expand() {
		if !stale.all && !stale.dirs[d.path] && d.current() {
			continue
		}
		hadErr := d.err != nil
		err := x.scan.scan(ctx, d, &stale, func(name string, f *file) { changes = append(changes, d.change(name, f)) })
		if c, ok := x.blindness(d, hadErr); ok {
			changes = append(changes, c)
		}
		if err != nil {
			x.putBack(stale)
			return changes, err
		}
	}
	return changes, nil
}

// blindness is the change from a directory that can be read to one that cannot, or back: while it cannot, a domain may
// start that nobody sees, and one blind domain stands for that.
func (x *Index) blindness(d *dir, hadErr bool) (Change, bool) {
	blind := d.err != nil && !d.kind.Session && !(x.scan.lenient && os.IsPermission(d.err))
	switch {
	case blind && !hadErr:
		return Change{Path: d.path, Domain: &Domain{Driver: d.kind.Driver, Name: "unreadable " + d.path, Blind: true}, Err: d.err}, true
	case !blind && hadErr:
		return Change{Path: d.path}, true
	}
	return Change{}, false
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
	for p := range x.dirs {
		paths = append(paths, p)
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

// putBack keeps the marks of a Refresh that did not get through.
func (x *Index) putBack(m marks) {
	x.staleMu.Lock()
	defer x.staleMu.Unlock()
	for path := range m.files {
		x.stale.add(path)
	}
	x.stale.all = x.stale.all || m.all
}

// Problems lists what could not be read.
func (x *Index) Problems() []Problem {
	var all []Problem
	for _, d := range x.dirs {
		if d.err != nil {
			all = append(all, Problem{Path: d.path, Err: d.err, Blind: !d.kind.Session})
		}
		for name, f := range d.files {
			if f.err != nil {
				all = append(all, Problem{Path: d.file(name), Err: f.err, Blind: f.domain != nil && f.domain.Blind})
			}
		}
	}
	return all
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

func (d *dir) change(name string, f *file) Change {
	c := Change{Path: d.file(name)}
	if f != nil {
		c.Domain, c.Err = f.domain, f.err
	}
	return c
}
