// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"imgward/guard/calls"
	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// domains is what libvirt's status files say, by inode. Every question reads the directories again (see libvirt.Index).
type domains struct {
	host     Host
	proc     procfs.FS
	isVMM    func(pid int) bool
	evidence Evidence // what an image of a domain counts as
	// namesOnly: the files are an ordinary user's. Their paths are not followed, for they may lead to a file system
	// that never answers.
	namesOnly bool

	// What is told of changes once the first reading is through, with sem held.
	changed    func(d *domain, change, images string)
	hangs      func(l *domainImage)
	unreadable func(path string, err error, d *domain)

	// looks are at the processes that the files name. One in execve(2) cannot be looked at until it is through, which takes
	// for ever where its program is on a file system that does not answer (see procfs.walker); nobody waits for that more
	// than once, and its images count as in use.
	looks calls.Keyed

	// sem, of capacity 1, is held while anything below is used: a mutex that a context can stop waiting for. Directories
	// and files of the host are read by other goroutines, so that none of them holds it up.
	sem chan struct{}
	// everything: the next reading follows all paths again, not only those that led nowhere.
	everything atomic.Bool

	index    *libvirt.Index
	more     func(context.Context) []libvirt.Change // from elsewhere than the index; nil: nothing
	readOnce bool                                   // everything was read once
	byPath   map[string]*domain                     // by status file
	byImage  map[ID][]*domainImage                  // what is known to be in use, running or not
	unread   map[string]*domain                     // the domains of which no status file could be read yet
	byPID    map[int]*domain                        // for naming a VMM that other evidence found
	paths                                           // how the paths are followed
}

func newDomains(host Host, proc procfs.FS, index *libvirt.Index, isVMM func(pid int) bool) *domains {
	return &domains{
		host: host, proc: proc, isVMM: isVMM, evidence: EvidenceLibvirt,
		changed: func(*domain, string, string) {}, hangs: func(*domainImage) {}, unreadable: func(string, error, *domain) {}, sem: make(chan struct{}, 1), index: index,
		byPath: make(map[string]*domain), byImage: make(map[ID][]*domainImage), unread: make(map[string]*domain), byPID: make(map[int]*domain),
		paths: newPaths(),
	}
}

// patience is how long a question waits for the evidence before it is answered without: against a destroyer.
const patience = 5 * time.Second

// locked runs f with everything up to date, or fails when ctx ends or patience runs out first. A directory or a path that
// does not answer is set aside before that (see libvirt.ErrNoAnswer, paths).
func (s *domains) locked(ctx context.Context, f func()) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.refresh(ctx); err != nil {
		return fmt.Errorf("read libvirt's files: %w", err)
	}
	f()
	return nil
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
		return fmt.Errorf("read libvirt's files: %w", ctx.Err())
	}
}

func (s *domains) release() { <-s.sem }

// refresh reads what has changed, with sem held.
func (s *domains) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	changes, err := s.index.Refresh(ctx)
	for _, c := range changes {
		s.apply(c)
	}
	if err != nil {
		return err
	}
	if s.more != nil {
		for _, c := range s.more(ctx) {
			s.apply(c)
		}
	}
	if s.everything.Swap(false) || s.due() {
		s.resolveAll(ctx)
	} else {
		s.retryMissing()
	}
	err = s.answers(ctx)
	s.readOnce = s.readOnce || err == nil
	return err
}

// dirs are the directories that are read.
func (s *domains) dirs(ctx context.Context) (dirs []string) {
	_ = s.locked(ctx, func() { dirs = s.index.Dirs() })
	return dirs
}

// uses says who uses the image, by the status files as they are now.
func (s *domains) uses(ctx context.Context, a *asked) (uses []Use, err error) {
	err = s.locked(ctx, func() { uses = s.known(ctx, a) })
	return uses, err
}

// known is uses, with sem held.
func (s *domains) known(ctx context.Context, a *asked) (uses []Use) {
	for _, l := range slices.Clone(s.byImage[a.id]) { // a path that leads elsewhere by now changes it
		if s.running(l.domain) && s.leadsTo(ctx, l, a.id) {
			uses = append(uses, l.use())
		}
	}
	return append(append(uses, s.pendingUses(a)...), s.unreadUses(a)...)
}

// all lists the images of all running domains.
func (s *domains) all(ctx context.Context) (map[ID][]Use, error) {
	return s.among(ctx, func(ID) bool { return true })
}

// among lists those images of all running domains that are asked for. Only the processes of their domains are looked at, and
// nobody else waits for that: with thousands of domains it takes a while.
func (s *domains) among(ctx context.Context, asked func(ID) bool) (map[ID][]Use, error) {
	type found struct {
		id  ID
		use Use
		vmm vmm
	}
	var list []found
	all, alive := make(map[ID][]Use), make(map[vmm]bool)
	err := s.locked(ctx, func() {
		for id, ls := range s.byImage {
			if !asked(id) {
				continue
			}
			for _, l := range ls {
				if d := l.domain; s.mayRun(d) {
					list = append(list, found{id, l.use(), vmm{d.PID, d.start}})
				}
			}
		}
		s.unreadOpen(all)
	})
	for _, f := range list {
		up, known := alive[f.vmm]
		if !known {
			up = f.vmm.pid == 0 || f.vmm.start == startUnknown || s.alive(f.vmm.pid, f.vmm.start)
			alive[f.vmm] = up
		}
		if up {
			all[f.id] = append(all[f.id], f.use)
		}
	}
	return all, err
}

// vmm is the process of a running domain.
type vmm struct {
	pid   int
	start uint64
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
			u.Target, u.Role, u.Path = l.image.Target, l.image.Role, l.image.Path
			break
		}
	}
	return true
}
