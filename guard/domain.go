package guard

import (
	"slices"
	"time"

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

// listing is one image that a domain lists. Its ids stick while the same VMM lists the same path: if the path comes to
// mean another inode, the VMM may still have the old one.
type listing struct {
	domain *domain
	image  libvirt.Image
	ids    []ID
}

// newDomain makes a domain of a status file's contents. before is what the same file said last; nil if it is new.
func newDomain(d *libvirt.Domain, before *domain, proc procfs.FS, isVMM func(pid int) bool) *domain {
	n := &domain{Domain: *d}
	if before != nil && before.PID == d.PID && before.start != 0 {
		n.start = before.start
	} else {
		n.start = firstStart(d, proc, isVMM)
	}
	for _, i := range d.Images {
		l := &listing{domain: n, image: i}
		if before != nil && before.start == n.start {
			l.ids = before.idsOf(i.Path)
		}
		n.listings = append(n.listings, l)
	}
	n.Images = nil // the listings have them
	return n
}

// clockSlack allows for the difference between the clocks that stamp a file and a process.
const clockSlack = 2 * time.Second

// firstStart is the start time of the process that a status file names, or 0 if that cannot be the domain's any more.
//
// The file holds no start time, so a pid that was recycled since it was written (libvirtd killed with its domain) can
// be told only by its age. That would trust the wall clock, which may have been set since; hence a process that
// is a VMM is believed in any case.
func firstStart(d *libvirt.Domain, proc procfs.FS, isVMM func(pid int) bool) uint64 {
	if d.PID == 0 {
		return 0
	}
	stat, err := proc.Stat(d.PID)
	if err != nil || stat.Gone() {
		return 0
	}
	if procfs.StartedAt(stat.Start).After(d.Written.Add(clockSlack)) && !isVMM(d.PID) {
		return 0
	}
	return stat.Start
}

// running says whether the domain may have its images open. A domain without a pid in its file (libxl) is believed.
func (d *domain) running(proc procfs.FS) bool {
	switch {
	case !d.Running():
		return false
	case d.Blind || d.PID == 0:
		return true
	}
	return d.start != 0 && proc.Alive(d.PID, d.start)
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
func (l *listing) use(e Evidence) Use {
	return Use{
		Domain: l.domain.Name, UUID: l.domain.UUID, PID: l.domain.PID, Target: l.image.Target,
		Role: Role(l.image.Role), Writable: l.image.Writable, Evidence: e, Path: l.image.Path,
	}
}
