// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// dir is one directory of status files as it was last read. While it is being read, all but the last group of fields
// belongs to the goroutine that reads.
type dir struct {
	path    string
	kind    Dir
	files   map[string]*file // by name
	round   uint             // of listings
	stamp   stamp
	scanned time.Time
	err     error // why it could not be read; nil also while it does not exist
	// noted: some file could not be read, or names what may be found later, such as a volume of an inactive pool.
	noted   bool
	witness witness

	reading *reading // nil: nobody is reading it
	late    bool     // whoever is, has not come back for long
	missed  marks    // for the next reading
	blind   bool     // it counts as a domain of which nothing is known
}

// file is one status file as it was last read.
type file struct {
	name   string
	stamp  stamp
	round  uint    // dir.round of the last listing that it was in
	domain *Domain // what is known: the last contents that could be read, or a blind domain
	err    error   // why the present contents could not be read
	notes  []string
}

func (f *file) noted() bool { return len(f.notes) > 0 || f.err != nil }

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
	kind
	volumes Volumes
	workers int
	// lenient makes files that this process has no right to read a remark instead of a blind domain. The daemon is
	// root and must not be lenient: there, such a file is a fault.
	lenient bool
}

// maxScans bounds how often a directory is read again because it changed while it was read.
const maxScans = 5

// scan reads what has changed and tells report about it.
//
// Reading a directory while files are renamed in it may miss a name altogether, so a name that is missing counts as
// gone only if a look at that very name says so, and a directory that changed meanwhile is read again.
func (s *scanner) scan(d *dir, stale *marks, report func(name string, f *file)) {
	for range maxScans {
		started := time.Now()
		before, err := stampPath(d.path)
		if err == nil {
			err = s.scanOnce(d, stale, report)
		}
		if errors.Is(err, fs.ErrNotExist) {
			d.clear(report)
			return
		}
		if d.err = err; err != nil {
			return // kept in d.err: the caller turns it into a blind domain
		}
		d.stamp, d.scanned = before, started
		if after, err := stampPath(d.path); err == nil && after == before {
			return
		}
	}
}

func (d *dir) clear(report func(name string, f *file)) {
	for name := range d.files {
		delete(d.files, name)
		report(name, nil)
	}
	d.stamp, d.err = stamp{}, nil
}

// scanOnce compares one listing with what is known, and reads the files that differ. At ten thousand files that costs what
// it does for each of them, so it allocates nothing for one that is as it was.
func (s *scanner) scanOnce(d *dir, stale *marks, report func(string, *file)) error {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	defer unix.Close(fd)
	d.round++
	l := listing{inodesTell: !stale.all && neverReusesInodes(fd), stale: stale.files[d.path]}
	suffix := []byte(s.suffix)
	if err := readdir(fd, func(name []byte, ino uint64) {
		if l.files != d.kind.maxFiles() && bytes.HasSuffix(name, suffix) {
			l.add(d, name, ino)
		}
	}); err != nil {
		return err
	}
	d.reading.steps.Add(1)
	changed := l.read
	if l.known < len(d.files) {
		l.stat = append(l.stat, d.missing(fd, report)...)
	}
	changed = append(changed, s.differing(d, fd, l.stat)...)
	d.noted = slices.ContainsFunc(l.stat, (*file).noted) // what was mended just now shows at the next look
	s.loadAll(d, fd, changed, report)
	return nil
}

// listing is what one look at a directory's names finds.
type listing struct {
	inodesTell bool
	stale      map[string]bool // names

	files int      // names of status files
	known int      // those of them that are in dir.files
	read  []string // to be read
	stat  []*file  // to be read if their stamp has changed
}

func (l *listing) add(d *dir, name []byte, ino uint64) {
	l.files++
	old := d.files[string(name)]
	if old != nil && old.round != d.round {
		old.round = d.round
		l.known++
	}
	switch {
	case old == nil || len(old.notes) > 0 || l.stale[string(name)]:
		l.read = append(l.read, string(name))
	case !l.inodesTell || old.err != nil:
		l.stat = append(l.stat, old)
	case old.stamp.ino != ino:
		l.read = append(l.read, old.name)
	}
}

// missing drops the files that are not listed any more, and returns those that were only overlooked.
func (d *dir) missing(fd int, report func(string, *file)) (overlooked []*file) {
	for name, old := range d.files {
		if old.round == d.round {
			continue
		}
		if _, err := statAt(fd, name); errors.Is(err, unix.ENOENT) {
			delete(d.files, name)
			report(name, nil)
		} else {
			overlooked = append(overlooked, old)
		}
	}
	return overlooked
}

// statBatch is how many files a goroutine looks at before it takes more: a fraction of a millisecond.
const statBatch = 256

// differing looks at the stamps of files, on several processors, and returns the names of those that are not as they were.
func (s *scanner) differing(d *dir, dirfd int, files []*file) (names []string) {
	batches := slices.Collect(slices.Chunk(files, statBatch))
	differ := make([][]string, len(batches))
	s.each(len(batches), func(i int) {
		for _, f := range batches[i] {
			if now, err := statAt(dirfd, f.name); err != nil || now != f.stamp {
				differ[i] = append(differ[i], f.name)
			}
		}
		d.reading.steps.Add(1)
	})
	return slices.Concat(differ...)
}

// each calls do with the numbers below n, on several processors.
func (s *scanner) each(n int, do func(int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var wg sync.WaitGroup
	for range min(s.workers, n) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// loadAll reads files, on several processors where there are many: the first load of a large host.
func (s *scanner) loadAll(d *dir, dirfd int, names []string, report func(string, *file)) {
	loaded := make([]*file, len(names))
	s.each(len(names), func(i int) { loaded[i] = s.load(d, dirfd, names[i]) })
	for i, name := range names {
		if loaded[i] == nil {
			if d.files[name] != nil {
				delete(d.files, name)
				report(name, nil)
			}
			continue
		}
		d.files[name] = loaded[i]
		d.noted = d.noted || loaded[i].noted()
		report(name, loaded[i])
	}
}

// load reads one status file; nil if it is gone. What cannot be read or parsed keeps the domain that was known, or
// makes a blind one; or none, if that is no fault.
func (s *scanner) load(d *dir, dirfd int, name string) *file {
	text, st, err := readAt(dirfd, name, s.text(d.kind.maxFile(), &d.reading.steps))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f := &file{name: name, stamp: st}
	if err == nil {
		d.reading.parsed(func() { f.domain, f.notes, err = s.parse(text, d.file(name), s.volumes) })
	}
	if err == nil {
		f.domain.Driver, f.domain.Session = d.kind.Driver, d.kind.Session
		f.domain.Written = time.Unix(st.mtime.Unix())
		return f
	}
	f.err = err
	switch old := d.files[name]; {
	case s.optional: // what it says may be known of others, and it is no fault that it is being written
	case old != nil && old.domain != nil && !old.domain.Blind:
		f.domain = old.domain
	case s.lenient && errors.Is(err, fs.ErrPermission), d.kind.Session:
	default:
		f.domain = &Domain{
			Driver: d.kind.Driver, Name: strings.TrimSuffix(name, s.suffix), Blind: true, Written: time.Unix(st.mtime.Unix()),
		}
		f.domain.takePID(dirfd, &d.reading.steps)
	}
	return f
}

// readAt reads a regular file below dirfd. Neither a FIFO nor a symbolic link of that name can hold it up or lead it away.
func readAt(dirfd int, name string, read func(*os.File) ([]byte, error)) ([]byte, stamp, error) {
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
	text, err := read(f)
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
