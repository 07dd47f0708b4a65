package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// dir is one directory of status files as it was last read.
type dir struct {
	path    string
	kind    Dir
	files   map[string]*file // by name
	stamp   stamp
	scanned time.Time
	err     error // why it could not be read; nil also while it does not exist
	// noted: some file could not be read, or names what may be found later, such as a volume of an inactive pool.
	noted bool
}

// file is one status file as it was last read.
type file struct {
	stamp  stamp
	domain *Domain // what is known: the last contents that could be read, or a blind domain
	err    error   // why the present contents could not be read
	notes  []string
}

// current says by one system call that the directory is as it was scanned. libvirt replaces status files by rename,
// which stamps the directory; so nothing in it needs to be looked at.
func (d *dir) current() bool {
	s, err := stampPath(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return len(d.files) == 0 && d.err == nil
	}
	return err == nil && d.err == nil && !d.noted && s == d.stamp && s.settledBy(d.scanned)
}

// scanner reads directories; it is what dirs of one index have in common.
type scanner struct {
	parse   func([]byte, Volumes) (*Domain, []string, error)
	volumes Volumes
	workers int
	// lenient makes files that this process has no right to read a remark instead of a blind domain. The daemon is
	// root and must not be lenient: there, such a file is a fault.
	lenient bool
}

// maxScans bounds how often a directory is read again because it changed while it was read.
const maxScans = 5

// scan reads what has changed and tells report about it, and gives up only when ctx ends.
//
// Reading a directory while files are renamed in it may miss a name altogether, so a name that is missing counts as
// gone only if a look at that very name says so, and a directory that changed meanwhile is read again.
func (s *scanner) scan(ctx context.Context, d *dir, stale *marks, report func(name string, f *file)) error {
	for range maxScans {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s: %w", d.path, err)
		}
		started := time.Now()
		before, err := stampPath(d.path)
		if err == nil {
			err = s.scanOnce(d, stale, report)
		}
		if errors.Is(err, fs.ErrNotExist) {
			d.clear(report)
			return nil
		}
		if d.err = err; err != nil {
			return nil // kept in d.err: the caller turns it into a blind domain
		}
		d.stamp, d.scanned = before, started
		if after, err := stampPath(d.path); err == nil && after == before {
			return nil
		}
	}
	return nil
}

func (d *dir) clear(report func(name string, f *file)) {
	for name := range d.files {
		delete(d.files, name)
		report(name, nil)
	}
	d.stamp, d.err = stamp{}, nil
}

// scanOnce compares one listing with what is known, and reads the files that differ.
func (s *scanner) scanOnce(d *dir, stale *marks, report func(string, *file)) error {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	defer unix.Close(fd)
	entries, err := readdir(fd)
	if err != nil {
		return err
	}
	inodesTell := !stale.all && neverReusesInodes(fd)
	listed := make(map[string]bool, len(entries))
	var changed []string
	for _, e := range entries {
		if !strings.HasSuffix(e.name, ".xml") || len(listed) == d.kind.maxFiles() {
			continue
		}
		listed[e.name] = true
		old := d.files[e.name]
		switch {
		case old == nil || len(old.notes) > 0 || stale.has(d, e.name):
		case inodesTell && old.err == nil && old.stamp.ino == e.ino:
			continue
		case (!inodesTell || old.err != nil) && unchanged(fd, e.name, old):
			continue
		}
		changed = append(changed, e.name)
	}
	changed = append(changed, d.missing(fd, listed, report)...)
	s.loadAll(d, fd, changed, report)
	return nil
}

// missing drops the files that are not listed any more, and returns those that were only overlooked and have changed.
func (d *dir) missing(fd int, listed map[string]bool, report func(string, *file)) (changed []string) {
	for name, old := range d.files {
		if listed[name] {
			continue
		}
		if _, err := statAt(fd, name); errors.Is(err, unix.ENOENT) {
			delete(d.files, name)
			report(name, nil)
		} else if !unchanged(fd, name, old) {
			changed = append(changed, name)
		}
	}
	return changed
}

func unchanged(dirfd int, name string, old *file) bool {
	now, err := statAt(dirfd, name)
	return err == nil && now == old.stamp
}

// loadAll reads files, on several processors where there are many: the first load of a large host.
func (s *scanner) loadAll(d *dir, dirfd int, names []string, report func(string, *file)) {
	loaded := make([]*file, len(names))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(s.workers, len(names)) {
		wg.Go(func() {
			for i := range next {
				loaded[i] = s.load(d, dirfd, names[i])
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, name := range names {
		if loaded[i] == nil {
			if d.files[name] != nil {
				delete(d.files, name)
				report(name, nil)
			}
			continue
		}
		d.files[name] = loaded[i]
		report(name, loaded[i])
	}
	d.noted = false
	for _, f := range d.files {
		d.noted = d.noted || len(f.notes) > 0 || f.err != nil
	}
}

// load reads one status file; nil if it is gone. What cannot be read or parsed keeps the domain that was known, or
// makes a blind one; or none, if that is no fault.
func (s *scanner) load(d *dir, dirfd int, name string) *file {
	text, st, err := readAt(dirfd, name, d.kind.maxFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f := &file{stamp: st}
	if err == nil {
		f.domain, f.notes, err = s.parse(text, s.volumes)
	}
	if err == nil {
		f.domain.Driver, f.domain.Session = d.kind.Driver, d.kind.Session
		f.domain.Written = time.Unix(st.mtime.Unix())
		return f
	}
	f.err = err
	switch old := d.files[name]; {
	case old != nil && old.domain != nil:
		f.domain = old.domain
	case s.lenient && errors.Is(err, fs.ErrPermission), d.kind.Session:
	default:
		f.domain = &Domain{Driver: d.kind.Driver, Name: strings.TrimSuffix(name, ".xml"), Blind: true}
	}
	return f
}

// readAt reads a regular file below dirfd. Neither a FIFO nor a symbolic link of that name can hold it up or lead it away.
func readAt(dirfd int, name string, most int64) ([]byte, stamp, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		st, _ := statAt(dirfd, name)
		return nil, st, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, stamp{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, stampOf(&st), errors.New("it is not a regular file")
	}
	text, err := readBounded(f, most)
	return text, stampOf(&st), err
}

func stampPath(path string) (stamp, error) {
	var st unix.Stat_t
	for {
		err := unix.Stat(filepath.Clean(path), &st)
		if !errors.Is(err, unix.EINTR) {
			return stampOf(&st), err
		}
	}
}
