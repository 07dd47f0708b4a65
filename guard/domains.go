package guard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// domains is what libvirt's status files say, by inode. Every question reads the directories again (see libvirt.Index).
type domains struct {
	host     Host
	proc     procfs.FS
	isVMM    func(pid int) bool
	evidence Evidence // what a listing counts as
	// namesOnly: the files are an ordinary user's. Their paths are not followed, for they may lead to a file system
	// that never answers.
	namesOnly bool

	// What is told of changes once the first reading is through, with sem held.
	changed    func(d *domain, change, images string)
	unreadable func(path string, err error, blind bool)

	// sem, of capacity 1, is held while anything below is used: a mutex that a context can stop waiting for. It is
	// held across the reading of directories and files of the host, never across a request to a view.
	sem chan struct{}
	// everything: the next reading follows all paths again, not only those that led nowhere.
	everything atomic.Bool

	index   *libvirt.Index
	settled bool                  // everything was read once
	byPath  map[string]*domain    // by status file
	byImage map[ID][]*listing     // what is known to be in use, running or not
	pending map[*listing]struct{} // listings whose path led nowhere yet
	retried time.Time             // when these were tried last
	anew    struct {              // when all paths were followed last, and how long that took
		at   time.Time
		took time.Duration
	}
	blind map[string]*domain // the domains that may use any image
	byPID map[int]*domain    // for naming a VMM that other evidence found
}

func newDomains(host Host, proc procfs.FS, index *libvirt.Index, isVMM func(pid int) bool) *domains {
	return &domains{
		host: host, proc: proc, isVMM: isVMM, evidence: EvidenceLibvirt,
		changed: func(*domain, string, string) {}, unreadable: func(string, error, bool) {}, sem: make(chan struct{}, 1), index: index,
		byPath: make(map[string]*domain), byImage: make(map[ID][]*listing), pending: make(map[*listing]struct{}),
		blind: make(map[string]*domain), byPID: make(map[int]*domain),
	}
}

// patience is how long a question waits for the evidence before it is answered without: against a destroyer.
const patience = 5 * time.Second

// locked runs f with everything up to date, or fails when ctx ends or patience runs out first. A path may lead to a file
// system that does not answer (a dead NFS server); so where something is to be read, another goroutine does it, and
// keeps sem for as long as it takes.
func (s *domains) locked(ctx context.Context, f func()) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	if s.current() {
		defer s.release()
		f()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	read := make(chan error, 1)
	go func() { read <- s.refresh(ctx) }()
	select {
	case err := <-read:
		defer s.release()
		if err == nil {
			f()
		}
		return err
	case <-ctx.Done():
		go func() {
			<-read
			s.release()
		}()
		return notRead(ctx)
	}
}

// acquire takes sem.
func (s *domains) acquire(ctx context.Context) error {
	select {
	case s.sem <- struct{}{}: // mostly; a timer would cost more than all that follows
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case s.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return notRead(ctx)
	}
}

func (s *domains) release() { <-s.sem }

func notRead(ctx context.Context) error { return fmt.Errorf("read libvirt's files: %w", ctx.Err()) }

// current says that there is nothing to read and no path to follow, with sem held. Only libvirt's own directories are
// looked at, which always answer: they are on tmpfs, or beside libvirt's configuration.
func (s *domains) current() bool {
	return s.settled && !s.namesOnly && len(s.pending) == 0 && !s.everything.Load() && !s.due() && s.index.Current()
}

// refresh reads what has changed, with sem held.
func (s *domains) refresh(ctx context.Context) error {
	changes, err := s.index.Refresh(ctx)
	for _, c := range changes {
		s.apply(c)
	}
	if err != nil {
		return err
	}
	s.settled = true
	if s.everything.Swap(false) || s.due() {
		s.resolveAll()
	} else {
		s.retryPending()
	}
	return nil
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
			if s.running(l.domain) && s.leadsTo(l, id) {
				uses = append(uses, l.use())
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
					up = s.running(l.domain)
					alive[l.domain] = up
				}
				if up {
					all[id] = append(all[id], l.use())
				}
			}
		}
		if blind := s.blindUses(); len(blind) > 0 {
			all[ID{}] = blind
		}
	})
	return all, err
}

// name fills in domain and disk of a use that other evidence found by its process: the status file of that process
// knows them, even if its path led to no inode. False: there is none.
func (s *domains) name(id ID, u *Use) bool {
	d := s.byPID[u.PID]
	if d == nil || !s.running(d) {
		return false
	}
	u.Domain, u.UUID = d.Name, d.UUID
	for l := range d.all() {
		if slices.Contains(l.ids, id) || u.Path != "" && l.image.Path == u.Path {
			u.Target, u.Role, u.Path = l.image.Target, Role(l.image.Role), l.image.Path
			break
		}
	}
	return true
}
