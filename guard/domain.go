// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// domain is one libvirt domain, with the inodes that its images were found to be.
type domain struct {
	libvirt.Domain
	start  uint64 // of the VMM when its pid was first seen in this file; 0: it did not run then
	images []*domainImage
	state  string // the file that holds its state, if it is a saved one
	// unreadable: the file cannot be read any more, and this is what it said before. problem says why.
	unreadable bool
	problem    string
}

// domainImage is one image that a domain uses. Its ids stick while the same VMM lists the same path: if the path comes to
// mean another inode, the VMM may still have the old one.
type domainImage struct {
	domain   *domain
	image    libvirt.Image
	evidence Evidence
	ids      []ID
	below    []*domainImage // what its header refers to and the domain does not list itself

	asked   bool                   // the path is being followed
	late    bool                   // it did not answer in time
	dropped bool                   // the domain does not list it any more
	at      atomic.Pointer[string] // the path that is being looked at
}

// newDomain makes a domain of a status file's contents. before is what the same file said last; nil if it is new.
func (s *domains) newDomain(d *libvirt.Domain, path string, before *domain) *domain {
	n := &domain{Domain: *d}
	if s.evidence == EvidenceSaved {
		n.state = path
	}
	if before != nil && before.PID == d.PID && before.start != 0 {
		n.start = before.start
	} else {
		n.start = s.firstStart(d)
	}
	for _, i := range d.Images {
		l := &domainImage{domain: n, image: i, evidence: s.evidence}
		// Two VMMs may have started within one clock tick: only the pid tells them apart then.
		if before != nil && before.PID == d.PID && before.start == n.start {
			l.ids = before.idsOf(i.Path)
		}
		n.images = append(n.images, l)
	}
	n.Images = nil // n.images has them
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
	pid, written, start := d.PID, d.Written, uint64(0)
	if !s.looks.Do(strconv.Itoa(pid), func() { start = s.startOf(pid, written) }) {
		return startUnknown
	}
	return start
}

func (s *domains) startOf(pid int, written time.Time) uint64 {
	stat, err := s.proc.Stat(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return 0
	case err != nil:
		return startUnknown
	case stat.Gone():
		return 0
	}
	if procfs.StartedAt(stat.Start).After(written.Add(clockSlack)) && !s.isVMM(pid) {
		return 0
	}
	return stat.Start
}

// running says whether the domain may have its images open: while its process lives, whatever libvirt calls its state
// (QEMU stays after a crash or a power-off that is to be preserved). A domain without a pid in its file (libxl) is
// believed.
func (s *domains) running(d *domain) bool {
	return s.mayRun(d) && (d.PID == 0 || d.start == startUnknown || s.alive(d.PID, d.start))
}

// mayRun says whether the domain runs if its process does, should that be known.
func (s *domains) mayRun(d *domain) bool {
	if d.PID == 0 {
		return d.Blind || d.Running()
	}
	if d.start == startUnknown {
		d.start = s.firstStart(&d.Domain)
	}
	return d.start != 0
}

// alive says whether the process still runs. One that cannot be looked at does: see looks.
func (s *domains) alive(pid int, start uint64) bool {
	var alive bool
	answered := s.looks.Do(strconv.Itoa(pid), func() { alive = s.proc.Alive(pid, start) })
	return !answered || alive
}

// startedAfter says whether the VMM was started after a moment.
func (d *domain) startedAfter(t time.Time) bool {
	return d.start != 0 && d.start != startUnknown && procfs.StartedAt(d.start).After(t)
}

// all yields the domain's images with those below them.
func (d *domain) all() iter.Seq[*domainImage] {
	return func(yield func(*domainImage) bool) {
		for _, l := range d.images {
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
	return slices.ContainsFunc(d.images, func(l *domainImage) bool { return l.image.Path == path })
}

// heads says whether the image may stand at the head of a chain.
func (l *domainImage) heads() bool {
	return l.image.Format != "raw" && l.evidence != EvidenceChain &&
		l.image.Role != RoleBacking && l.image.Role != RoleDataFile
}

func (d *domain) idsOf(path string) []ID {
	for _, l := range d.images {
		if l.image.Path == path {
			return slices.Clone(l.ids)
		}
	}
	return nil
}

// resolved notes an inode that the path was found to be, and says whether that is news.
func (l *domainImage) resolved(id ID) bool {
	if slices.Contains(l.ids, id) {
		return false
	}
	l.ids = append(l.ids, id)
	return true
}

// lists says whether two versions of a domain are of the same VMM with the same images.
func (d *domain) lists(before *domain) bool {
	return d.PID == before.PID && slices.EqualFunc(d.images, before.images, func(a, b *domainImage) bool {
		return a.image == b.image
	})
}

// use is the image as evidence.
func (l *domainImage) use() Use {
	u := Use{
		Domain: l.domain.Name, UUID: l.domain.UUID, PID: l.domain.PID, Target: l.image.Target,
		Role: l.image.Role, Writable: l.image.Writable, Evidence: l.evidence, Path: l.image.Path, Pending: l.late,
		State: l.domain.state, shareable: l.image.Shareable,
	}
	if u.PID == 0 {
		u.emulator = l.domain.Emulator
	}
	return u
}
