// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// stateFiles are the files of the view that hold a domain's saved state. They are looked for now and then, and where
// libvirt opened a file for writing; those that are known are looked at again at every question.
type stateFiles struct {
	g *Guard

	mu       sync.Mutex
	known    map[string]*stateFile // by path
	suspects map[string]bool       // paths of what may have become one
	news     []libvirt.Change
	// suspected is sent to when there is a new suspect.
	suspected chan struct{}
}

// stateFile is one of them. spent: its domain has run since, or its disks were written to, or it is a snapshot's; it stays so
// until the file is another one.
type stateFile struct {
	version fileVersion
	domain  *libvirt.Domain
	spent   bool
}

const (
	// maxSuspects bounds what is looked at for one question.
	maxSuspects = 64
	// writtenSlack allows for a disk whose last write is stamped after the state's.
	writtenSlack = 2 * time.Second
	// followEvery is how often a state is looked at while its domain runs.
	followEvery = 200 * time.Millisecond
)

// follow looks at each suspect again and again until it is no saved state, or its domain ends (it was saved) or has gone on
// (a snapshot's memory is the same kind of file): once the domain is gone, nothing tells the two apart.
func (s *stateFiles) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.suspected:
		}
		for s.undecided(ctx) && rest(ctx, followEvery) {
		}
	}
}

func (s *stateFiles) undecided(ctx context.Context) (yes bool) {
	s.lookAround(ctx, "follow")
	s.mu.Lock()
	yes = len(s.suspects) > 0
	var open []*libvirt.Domain
	for _, f := range s.known {
		if !f.spent {
			open = append(open, f.domain)
		}
	}
	s.mu.Unlock()
	for _, d := range open {
		yes = yes || s.g.runs(ctx, d.UUID)
	}
	return yes
}

func (s *stateFiles) suspect(path string) {
	if path == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.suspects) < maxSuspects {
		s.suspects[path] = true
	}
	select {
	case s.suspected <- struct{}{}:
	default:
	}
}

// changes says what has changed since the last time.
func (s *stateFiles) changes(ctx context.Context) []libvirt.Change {
	s.lookAround(ctx, "question")
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.news
	s.news = nil
	return news
}

// lookAround looks at all that are known, and at the suspects.
func (s *stateFiles) lookAround(ctx context.Context, who string) {
	s.mu.Lock()
	paths := slices.AppendSeq(slices.Collect(maps.Keys(s.suspects)), maps.Keys(s.known))
	s.mu.Unlock()
	if len(paths) == 0 {
		return
	}
	s.g.lookups.Do("saved states: "+who, func() { // not held up by the other
		for _, path := range paths {
			s.examine(ctx, path)
		}
	})
}

// examine looks at one file.
func (s *stateFiles) examine(ctx context.Context, path string) {
	f, err := procfs.OpenRetry(func() (*os.File, error) { return s.g.config.Host.Open(path) })
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			s.learn(path, nil, false)
		}
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return
	}
	s.mu.Lock()
	now := s.known[path]
	s.mu.Unlock()
	if v := versionOf(&st); now == nil || now.version != v {
		d, _, err := libvirt.ParseSaveImage(f, path, libvirt.Pools{Dirs: s.g.config.PoolDirs}.Path)
		if err != nil {
			s.learn(path, nil, errors.Is(err, libvirt.ErrUnfinished) || st.Size == 0)
			return
		}
		d.Written = time.Unix(st.Mtim.Unix())
		now = &stateFile{version: v, domain: d, spent: s.written(d)}
	}
	is := *now
	is.spent = is.spent || s.g.wentOn(ctx, is.domain) || s.ofSnapshot(is.domain, StatID(&st))
	s.learn(path, &is, false)
}

// ofSnapshot says whether it is the memory of a snapshot: the domain went on, and its disks are nobody's.
func (s *stateFiles) ofSnapshot(d *libvirt.Domain, id ID) bool {
	return len(snapshotUses(s.g.config.Host, s.g.config.SnapshotDir, d.Name, &id)) > 0
}

// written says whether a disk of a saved domain was written to since.
func (s *stateFiles) written(d *libvirt.Domain) bool {
	for _, i := range d.Images {
		if i.Role != RoleDisk || !i.Writable {
			continue
		}
		f, err := s.g.config.Host.Open(i.Path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = fstat(f, &st)
		f.Close()
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && time.Unix(st.Mtim.Unix()).After(d.Written.Add(writtenSlack)) {
			return true
		}
	}
	return false
}

// learn takes in what a file is now; nil: no saved state, though perhaps soon.
func (s *stateFiles) learn(path string, now *stateFile, soon bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !soon {
		delete(s.suspects, path)
	}
	before := s.known[path]
	if now == nil {
		delete(s.known, path)
	} else {
		s.known[path] = now
	}
	was, is := before != nil && !before.spent, now != nil && !now.spent
	switch {
	case is && (!was || before.version != now.version):
		s.news = append(s.news, libvirt.Change{Path: path, Domain: now.domain})
	case was && !is:
		s.news = append(s.news, libvirt.Change{Path: path})
	}
}

// found is told of each file of the view. Most that have changed are images that a VM writes to, and for these one reading of
// a few bytes is all.
func (s *stateFiles) found(ctx context.Context, f *viewFile) {
	if f.changed {
		s.examine(ctx, f.path)
	}
}

// fstat is fstat(2) without the side effects of f.Fd.
func fstat(f *os.File, st *unix.Stat_t) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(conn.Control(func(fd uintptr) { inner = unix.Fstat(int(fd), st) }), inner)
}
