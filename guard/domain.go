package guard

import (
	"errors"
	"io/fs"
	"iter"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// domain is one libvirt domain, with the inodes that its images were found to be.
type domain struct {
	libvirt.Domain
	start    uint64 // of the VMM when its pid was first seen in this file; 0: it did not run then
	listings []*listing
	// unreadable: the file cannot be read any more, and this is what it said before.
	unreadable bool
}

// listing is one image that a domain uses. Its ids stick while the same VMM lists the same path: if the path comes to
// mean another inode, the VMM may still have the old one.
type listing struct {
	domain   *domain
	image    libvirt.Image
	evidence Evidence
	ids      []ID
	below    []*listing // what its header refers to and the domain does not list itself
}

// newDomain makes a domain of a status file's contents. before is what the same file said last; nil if it is new.
func (s *domains) newDomain(d *libvirt.Domain, before *domain) *domain {
	n := &domain{Domain: *d}
	if before != nil && before.PID == d.PID && before.start != 0 {
		n.start = before.start
	} else {
		n.start = s.firstStart(d)
	}
	for _, i := range d.Images {
		l := &listing{domain: n, image: i, evidence: s.evidence}
		// Two VMMs may have started within one clock tick: only the pid tells them apart then.
		if before != nil && before.PID == d.PID && before.start == n.start {
			l.ids = before.idsOf(i.Path)
		}
		n.listings = append(n.listings, l)
	}
	n.Images = nil // the listings have them
	return n
}

// startUnknown is the start time of a process that could not be looked at: the daemon is out of descriptors, say.
const startUnknown = ^uint64(0)

// clockSlack allows for the difference between the clocks that stamp a file and a process.
const clockSlack = 2 * time.Second

// firstStart is the start time of the process that a status file names, or 0 if that cannot be the domain's any more.
//
// The file holds no start time, so a pid that was recycled since it was written (libvirtd killed with its domain) can
// be told only by its age. That would trust the wall clock, which may have been set since; hence a process that
// is a VMM is believed in any case.
func (s *domains) firstStart(d *libvirt.Domain) uint64 {
	if d.PID == 0 {
		return 0
	}
	stat, err := s.proc.Stat(d.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return 0
	case err != nil:
		return startUnknown
	case stat.Gone():
		return 0
	}
	if procfs.StartedAt(stat.Start).After(d.Written.Add(clockSlack)) && !s.isVMM(d.PID) {
		return 0
	}
	return stat.Start
}

// running says whether the domain may have its images open: while its process lives, whatever libvirt calls its state
// (QEMU stays after a crash or a power-off that is to be preserved). A domain without a pid in its file (libxl) is
// believed.
func (s *domains) running(d *domain) bool {
	switch {
	case d.Blind:
		return true
	case d.PID == 0:
		return d.Running()
	}
	if d.start == startUnknown {
		d.start = s.firstStart(&d.Domain)
	}
	return d.start == startUnknown || d.start != 0 && s.proc.Alive(d.PID, d.start)
}

// all yields the domain's listings with those below them.
func (d *domain) all() iter.Seq[*listing] {
	return func(yield func(*listing) bool) {
		for _, l := range d.listings {
			if !yield(l) {
				return
			}
			for _, n := range l.below {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// names says whether the domain itself lists a path.
func (d *domain) names(path string) bool {
	return slices.ContainsFunc(d.listings, func(l *listing) bool { return l.image.Path == path })
}

// heads says whether the image may stand at the head of a chain.
func (l *listing) heads() bool {
	return l.image.Format != "raw" && l.evidence != EvidenceChain &&
		l.image.Role != libvirt.Backing && l.image.Role != libvirt.DataFile
}

func (d *domain) idsOf(path string) []ID {
	for _, l := range d.listings {
		if l.image.Path == path {
			return slices.Clone(l.ids)
		}
	}
	return nil
}

// resolved notes an inode that the path was found to be, and says whether that is news.
func (l *listing) resolved(id ID) bool {
	if slices.Contains(l.ids, id) {
		return false
	}
	l.ids = append(l.ids, id)
	return true
}

// lists says whether two versions of a domain are of the same VMM with the same images.
func (d *domain) lists(before *domain) bool {
	return d.PID == before.PID && slices.EqualFunc(d.listings, before.listings, func(a, b *listing) bool {
		return a.image == b.image
	})
}

// use is the listing as evidence.
func (l *listing) use() Use {
	return Use{
		Domain: l.domain.Name, UUID: l.domain.UUID, PID: l.domain.PID, Target: l.image.Target,
		Role: Role(l.image.Role), Writable: l.image.Writable, Evidence: l.evidence, Path: l.image.Path,
	}
}
