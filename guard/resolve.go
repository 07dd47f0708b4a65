// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"imgward/guard/calls"
	"imgward/guard/chain"
	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// maxInodes bounds the inodes that are remembered for one path of one domain; the oldest go. A path under which files
// are made and removed all day must not protect every inode number that it ever had.
const maxInodes = 4

// paths is how the paths of images are followed: in the background, for any of them may lead to a file system that does
// not answer. A question waits for what was never late, and for that no longer than calls.Patience.
type paths struct {
	pool    calls.Pool
	awaited map[*domainImage]struct{}  // being followed, and worth waiting for
	pending map[*domainImage]time.Time // being followed for longer than that, and since when
	missing map[*domainImage]struct{}  // followed, and there was nothing
	retried time.Time                  // when these were tried last
	anew    struct {                   // when all paths were followed last, and how long that took
		at   time.Time
		took time.Duration
	}
}

func newPaths() paths {
	return paths{
		awaited: make(map[*domainImage]struct{}), pending: make(map[*domainImage]time.Time), missing: make(map[*domainImage]struct{}),
	}
}

// resolve has the inode of an image's path found, and what its header refers to. What cannot be found is tried again at
// every question: a disk on storage that is mounted later, an overlay that libvirt has named and not yet made.
func (s *domains) resolve(l *domainImage) {
	if s.namesOnly || l.asked {
		return
	}
	l.asked = true
	if !l.late {
		s.awaited[l] = struct{}{}
	}
	path, format, heads := l.image.Path, l.image.Format, l.heads()
	l.at.Store(&path)
	s.pool.Go(l.late, func(found func(func())) {
		id, err := s.host.Lookup(path)
		found(func() { s.leads(l, id, err) })
		if err == nil && heads {
			s.follow(l, path, format, found)
		}
		found(func() { s.answered(l, err) })
	})
}

// answers waits for the paths that are being followed. Those that have not answered by then are set aside as pending.
func (s *domains) answers(ctx context.Context) error {
	if s.pool.Wait(ctx, func() bool { return len(s.awaited) > 0 }) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for l := range s.awaited {
		l.late = true
		s.pending[l] = time.Now()
		s.hangs(l)
	}
	clear(s.awaited)
	return nil
}

// answered notes that all of an image's chain was followed. One that was late is not waited for before it leads somewhere.
func (s *domains) answered(l *domainImage, err error) {
	l.asked = false
	l.late = l.late && err != nil && !errors.Is(err, fs.ErrNotExist)
	delete(s.awaited, l)
	delete(s.pending, l)
}

// leads takes in what an image's path leads to.
func (s *domains) leads(l *domainImage, id ID, err error) {
	if l.dropped {
		return
	}
	if !s.sticks() && (err == nil && !slices.Contains(l.ids, id) || errors.Is(err, fs.ErrNotExist)) {
		for _, old := range l.ids {
			s.unlist(old, l)
		}
		l.ids = nil
	}
	if err != nil {
		if len(l.ids) == 0 {
			s.missing[l] = struct{}{}
		}
		return
	}
	delete(s.missing, l)
	if l.resolved(id) {
		s.byImage[id] = append(s.byImage[id], l)
	}
	for len(l.ids) > maxInodes {
		s.unlist(l.ids[0], l)
		l.ids = l.ids[1:]
	}
}

// follow finds what the image's header refers to and the domain does not list itself: libvirt leaves out what it did
// not look at (a definition has no chain at all; drivers other than QEMU's never do). Each link is told before the next
// one is looked at, which may not answer.
func (s *domains) follow(l *domainImage, path, format string, found func(func())) {
	var now []*domainImage
	// Without a context: a chain that is read half is a gap in the evidence, and the whole is bounded.
	err := chain.Walk(context.Background(), func(path string) (*os.File, error) {
		l.at.Store(&path)
		return procfs.OpenRetry(func() (*os.File, error) { return s.host.Open(path) })
	}, path, format, func(link chain.Link) {
		found(func() { now = s.below(l, link, now) })
		l.at.Store(&link.Path)
		id, err := s.host.Lookup(link.Path)
		found(func() {
			if i := slices.IndexFunc(now, func(n *domainImage) bool { return n.image.Path == link.Path }); i >= 0 {
				s.leads(now[i], id, err)
			}
		})
	})
	found(func() { s.followed(l, now, err) })
}

// below adds a link to those that were found now, and, if it is new, to what is below l.
func (s *domains) below(l *domainImage, link chain.Link, now []*domainImage) []*domainImage {
	if l.dropped || l.domain.names(link.Path) {
		return now
	}
	n := l.child(link)
	if !slices.Contains(l.below, n) {
		l.below = append(l.below, n)
	}
	return append(now, n)
}

// followed drops what the header does not refer to any more. One that cannot be read leaves what was known from before.
func (s *domains) followed(l *domainImage, now []*domainImage, err error) {
	if l.dropped || err != nil && len(now) < len(l.below) {
		return
	}
	for _, old := range l.below {
		if !slices.Contains(now, old) {
			s.drop(old)
		}
	}
	l.below = now
}

// child is the image of a link of l's chain: the one from before, if there is one.
func (l *domainImage) child(link chain.Link) *domainImage {
	for _, old := range l.below {
		if old.image.Path == link.Path {
			return old
		}
	}
	evidence := EvidenceChain
	if l.evidence == EvidenceSaved {
		evidence = EvidenceSaved
	}
	return &domainImage{domain: l.domain, evidence: evidence, image: libvirt.Image{
		Path: link.Path, Target: l.image.Target, Role: link.Role, Format: link.Format,
	}}
}

// Where so many paths lead nowhere that a look at all of them takes longer than the rest of a verdict, they are tried
// only so often. A VMM that opens one of them meanwhile is evidence enough.
const (
	maxMissing        = 256
	retryMissingEvery = time.Second
)

func (s *domains) retryMissing() {
	now := time.Now()
	if len(s.missing) > maxMissing && now.Sub(s.retried) < retryMissingEvery {
		return
	}
	s.retried = now
	for l := range s.missing {
		s.resolve(l)
	}
}

// resolveAll follows every path and every header again: they may lead elsewhere by now.
func (s *domains) resolveAll(ctx context.Context) {
	s.anew.at = time.Now()
	defer func() { s.anew.took = time.Since(s.anew.at) }()
	for _, d := range s.byPath {
		for _, l := range d.images {
			s.resolve(l)
		}
	}
	_ = s.answers(ctx) // the caller asks again, and is told
}

// errNoAnswer says of a path that nothing answers for it.
var errNoAnswer = errors.New("the file system does not answer")

// lookup follows any path, and gives up after calls.Patience.
func (g *Guard) lookup(path string) (ID, error) {
	var found struct {
		id  ID
		err error
	}
	if !g.lookups.Do(path, func() { found.id, found.err = g.config.Host.Lookup(path) }) {
		return ID{}, &fs.PathError{Op: "lookup", Path: path, Err: errNoAnswer}
	}
	return found.id, found.err
}

// sticks says whether an inode that a path once led to counts until its domain ends: the VMM may have it still. A
// definition has no VMM; it means what its paths lead to now.
func (s *domains) sticks() bool { return s.evidence != EvidencePolicy }

// due says whether all paths are to be followed again, to find what was put in an image's place: as often as costs no more
// than a share of the time (see keepWarm). Of a VMM's image that takes no looking, it has the file open.
func (s *domains) due() bool { return !s.sticks() && time.Since(s.anew.at) > share*s.anew.took }

// leadsTo says whether a domain's image is still this inode: the number of an inode that is gone may be another file's by now.
func (s *domains) leadsTo(ctx context.Context, l *domainImage, id ID) bool {
	if s.sticks() {
		return true
	}
	s.resolve(l)
	return s.answers(ctx) != nil || slices.Contains(l.ids, id)
}
