package guard

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// domains is what libvirt's status files say, by inode. Every question reads the directories again (see libvirt.Index).
type domains struct {
	host     Host
	proc     procfs.FS
	isVMM    func(pid int) bool
	evidence Evidence // what a listing counts as

	// What is told of changes once the first reading is through, with sem held.
	changed    func(d *domain, change string)
	unreadable func(path string, err error, blind bool)

	// sem, of capacity 1, is held while anything below is used: a mutex that a context can stop waiting for. It is
	// held across the reading of directories and files of the host, never across a request to a view.
	sem     chan struct{}
	index   *libvirt.Index
	settled bool                  // everything was read once
	byPath  map[string]*domain    // by status file
	byImage map[ID][]*listing     // what is known to be in use, running or not
	pending map[*listing]struct{} // listings whose path led nowhere yet
	blind   map[string]*domain    // the domains that may use any image
	byPID   map[int]*domain       // for naming a VMM that other evidence found
}

func newDomains(host Host, proc procfs.FS, index *libvirt.Index, isVMM func(pid int) bool) *domains {
	return &domains{
		host: host, proc: proc, isVMM: isVMM, evidence: EvidenceLibvirt,
		changed: func(*domain, string) {}, unreadable: func(string, error, bool) {}, sem: make(chan struct{}, 1), index: index,
		byPath: make(map[string]*domain), byImage: make(map[ID][]*listing), pending: make(map[*listing]struct{}),
		blind: make(map[string]*domain), byPID: make(map[int]*domain),
	}
}

// locked runs f with everything up to date, or fails when ctx ends first.
func (s *domains) locked(ctx context.Context, f func()) error {
	select {
	case s.sem <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("read libvirt's status files: %w", ctx.Err())
	}
	defer func() { <-s.sem }()
	changes, err := s.index.Refresh(ctx)
	for _, c := range changes {
		s.apply(c)
	}
	if err != nil {
		return err
	}
	s.settled = true
	s.retryPending()
	f()
	return nil
}

// apply takes in one status file that came, changed or went.
func (s *domains) apply(c libvirt.Change) {
	before := s.byPath[c.Path]
	if before != nil {
		s.forget(c.Path, before)
	}
	var d *domain
	if c.Domain != nil {
		d = newDomain(c.Domain, before, s.proc, s.isVMM)
		d.unreadable = c.Err != nil
		s.learn(c.Path, d)
	}
	s.report(c, before, d)
}

// learn takes in what a file says.
func (s *domains) learn(path string, d *domain) {
	s.byPath[path] = d
	if d.PID != 0 {
		s.byPID[d.PID] = d
	}
	if d.Blind {
		s.blind[path] = d
	}
	for _, l := range d.listings {
		for _, id := range l.ids {
			s.byImage[id] = append(s.byImage[id], l)
		}
		s.resolve(l)
	}
}

// report tells what has changed. The domains that are there when the daemon starts are no news; a file that cannot be
// read always is.
func (s *domains) report(c libvirt.Change, before, now *domain) {
	if c.Err != nil && (before == nil || !before.unreadable) {
		s.unreadable(c.Path, c.Err, now != nil && now.Blind)
	}
	if !s.settled || c.Err != nil {
		return
	}
	switch {
	case before == nil || before.Blind && now != nil:
		s.changed(now, "started")
	case now == nil && !before.Blind:
		s.changed(before, "stopped")
	case now != nil && !now.lists(before):
		s.changed(now, "changed")
	}
}

func (s *domains) forget(path string, d *domain) {
	delete(s.byPath, path)
	delete(s.blind, path)
	if s.byPID[d.PID] == d {
		delete(s.byPID, d.PID)
	}
	for _, l := range d.listings {
		delete(s.pending, l)
		for _, id := range l.ids {
			s.unlist(id, l)
		}
	}
}

func (s *domains) unlist(id ID, l *listing) {
	rest := slices.DeleteFunc(s.byImage[id], func(o *listing) bool { return o == l })
	if len(rest) == 0 {
		delete(s.byImage, id)
		return
	}
	s.byImage[id] = rest
}

// resolve finds the inode of a listing's path. What cannot be found is tried again at every question: a disk on storage
// that is mounted later, an overlay that libvirt has named and not yet made.
func (s *domains) resolve(l *listing) {
	id, err := s.host.Lookup(l.image.Path)
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
}

// maxInodes bounds the inodes that are remembered for one path of one domain; the oldest go. A path under which files
// are made and removed all day must not protect every inode number that it ever had.
const maxInodes = 4

func (s *domains) retryPending() {
	for l := range s.pending {
		s.resolve(l)
	}
}

// resolveAll follows every path again: one may lead to another inode by now.
func (s *domains) resolveAll() {
	for _, d := range s.byPath {
		for _, l := range d.listings {
			s.resolve(l)
		}
	}
}

// dirs are the directories that are read.
func (s *domains) dirs(ctx context.Context) (dirs []string) {
	_ = s.locked(ctx, func() { dirs = s.index.Dirs() })
	return dirs
}

// uses says who uses the image, by the status files as they are now.
func (s *domains) uses(ctx context.Context, id ID) ([]Use, error) {
	var uses []Use
	err := s.locked(ctx, func() {
		for _, l := range s.byImage[id] {
			if !l.domain.Session && l.domain.running(s.proc) {
				uses = append(uses, l.use(s.evidence))
			}
		}
		uses = append(uses, s.blindUses()...)
	})
	return uses, err
}

// blindUses stand for the domains of which nothing but a name is known: each may use any image.
func (s *domains) blindUses() []Use {
	var uses []Use
	for _, path := range slices.Sorted(maps.Keys(s.blind)) {
		uses = append(uses, Use{
			Domain: s.blind[path].Name, Role: RoleUnknown, Writable: true, Evidence: s.evidence, Path: path,
		})
	}
	return uses
}

// all lists the images of all running domains.
func (s *domains) all(ctx context.Context) (map[ID][]Use, error) {
	all := make(map[ID][]Use)
	err := s.locked(ctx, func() {
		alive := make(map[*domain]bool)
		for id, ls := range s.byImage {
			for _, l := range ls {
				up, asked := alive[l.domain]
				if !asked {
					up = !l.domain.Session && l.domain.running(s.proc)
					alive[l.domain] = up
				}
				if up {
					all[id] = append(all[id], l.use(s.evidence))
				}
			}
		}
		if blind := s.blindUses(); len(blind) > 0 {
			all[ID{}] = blind
		}
	})
	return all, err
}

// named fills in domain and disk of a use that other evidence found by its process: the status file of that process
// knows them, even if its path led to no inode or belongs to a user's session.
func (s *domains) named(ctx context.Context, id ID, u Use) Use {
	_ = s.locked(ctx, func() { // without the status files the use stands, only without a name
		d := s.byPID[u.PID]
		if d == nil || !d.running(s.proc) {
			return
		}
		u.Domain, u.UUID = d.Name, d.UUID
		for _, l := range d.listings {
			if slices.Contains(l.ids, id) {
				u.Target, u.Role, u.Path = l.image.Target, Role(l.image.Role), l.image.Path
				return
			}
		}
	})
	return u
}
