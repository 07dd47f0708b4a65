package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"imgward/guard/chain"
	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// maxInodes bounds the inodes that are remembered for one path of one domain; the oldest go. A path under which files
// are made and removed all day must not protect every inode number that it ever had.
const maxInodes = 4

// resolve finds the inode of a listing's path, and what its header refers to. What cannot be found is tried again at
// every question: a disk on storage that is mounted later, an overlay that libvirt has named and not yet made.
func (s *domains) resolve(l *listing) {
	if s.namesOnly {
		return
	}
	id, err := s.host.Lookup(l.image.Path)
	if !s.sticks() && (err == nil && !slices.Contains(l.ids, id) || errors.Is(err, fs.ErrNotExist)) {
		for _, old := range l.ids {
			s.unlist(old, l)
		}
		l.ids = nil
	}
	if err != nil {
		if len(l.ids) == 0 {
			s.pending[l] = struct{}{}
		}
		return
	}
	delete(s.pending, l)
	if l.resolved(id) {
		s.byImage[id] = append(s.byImage[id], l)
	}
	for len(l.ids) > maxInodes {
		s.unlist(l.ids[0], l)
		l.ids = l.ids[1:]
	}
	if l.heads() {
		s.follow(l)
	}
}

// follow lists what the image's header refers to and the domain does not list itself: libvirt leaves out what it did
// not look at (a definition has no chain at all; drivers other than QEMU's never do). A header that cannot be read
// leaves what was known from before.
func (s *domains) follow(l *listing) {
	// Without a context: a chain that is read half is a gap in the evidence, and the whole is bounded.
	links, err := chain.Read(context.Background(), func(path string) (*os.File, error) {
		return procfs.OpenRetry(func() (*os.File, error) { return s.host.Open(path) })
	}, l.image.Path, l.image.Format)
	before := l.below
	if err != nil && len(links) < len(before) {
		return
	}
	l.below = nil
	for _, link := range links {
		if !l.domain.names(link.Path) {
			l.below = append(l.below, l.child(link, before))
		}
	}
	for _, old := range before {
		if !slices.Contains(l.below, old) {
			s.drop(old)
		}
	}
	for _, n := range l.below {
		s.resolve(n)
	}
}

// child is the listing of a link of l's chain: the one from before, if there is one.
func (l *listing) child(link chain.Link, before []*listing) *listing {
	for _, old := range before {
		if old.image.Path == link.Path {
			return old
		}
	}
	return &listing{domain: l.domain, evidence: EvidenceChain, image: libvirt.Image{
		Path: link.Path, Target: l.image.Target, Role: libvirt.Role(link.Role), Format: link.Format,
	}}
}

// Where so many paths lead nowhere that a look at all of them takes longer than the rest of a verdict, they are tried
// only so often. A VMM that opens one of them meanwhile is evidence enough.
const (
	maxPending        = 256
	retryPendingEvery = time.Second
)

func (s *domains) retryPending() {
	now := time.Now()
	if len(s.pending) > maxPending && now.Sub(s.retried) < retryPendingEvery {
		return
	}
	s.retried = now
	for l := range s.pending {
		s.resolve(l)
	}
}

// resolveAll follows every path and every header again: they may lead elsewhere by now.
func (s *domains) resolveAll() {
	s.anew.at = time.Now()
	defer func() { s.anew.took = time.Since(s.anew.at) }()
	for _, d := range s.byPath {
		for _, l := range d.listings {
			s.resolve(l)
		}
	}
}

// sticks says whether an inode that a path once led to counts until its domain ends: the VMM may have it still. A
// definition has no VMM; it means what its paths lead to now.
func (s *domains) sticks() bool { return s.evidence != EvidencePolicy }

// due says whether all paths are to be followed again, to find what was put in an image's place: as often as costs no more
// than a share of the time (see keepWarm). Of a VMM's image that takes no looking, it has the file open.
func (s *domains) due() bool { return !s.sticks() && time.Since(s.anew.at) > share*s.anew.took }

// leadsTo says whether a listing still means the image: the number of an inode that is gone may be another file's by now.
func (s *domains) leadsTo(l *listing, id ID) bool {
	if s.sticks() {
		return true
	}
	now, err := s.host.Lookup(l.image.Path)
	return err == nil && now == id || err != nil && !errors.Is(err, fs.ErrNotExist)
}
