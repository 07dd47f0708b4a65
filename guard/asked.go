// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	"imgward/guard/procfs"
)

// asked is the image of a question, as far as it is needed to tell whether a domain uses it.
type asked struct {
	id   ID
	is   procfs.Match
	path func() string    // the name that the caller used, absolute on the host; empty where it is not known
	born func() time.Time // zero where it is not known
}

func (q *question) asked() *asked {
	return &asked{id: q.Image, is: q.isImage, path: q.hostPath, born: func() time.Time { return q.fileState().born }}
}

// hostPath is the path of the request on the host; empty where there is none.
func (q *question) hostPath() string {
	if q.Path == nil || q.g.config.ViewRoot == "" {
		return ""
	}
	if name := q.g.below(q.path()); name != "" {
		return filepath.Join(q.g.config.ViewRoot, name)
	}
	return ""
}

// pendingUses are the domains that name the image by the very path that the caller used, and whose path has not led
// anywhere yet: a disk that is slow to answer, and no dead server.
func (s *domains) pendingUses(a *asked) []Use {
	var uses []Use
	for l := range s.pending {
		if len(l.ids) == 0 && l.image.Path == a.path() && s.running(l.domain) {
			uses = append(uses, l.use())
		}
	}
	return uses
}

// unreadUses stand for the domains of which no more is known than that there may be one. Each may use any image, unless
// the process of the domain is known: then the files that it has open. One that was made after the status file was
// written is none of them, for libvirt writes the file again when a domain gets another disk.
func (s *domains) unreadUses(a *asked) []Use {
	var uses []Use
	for _, path := range slices.Sorted(maps.Keys(s.unread)) {
		d := s.unread[path]
		switch {
		case !s.running(d), d.PID != 0 && !s.proc.Holds(d.PID, a.is):
		case d.PID == 0 && bornAfter(a.born(), d.Written):
		default:
			uses = append(uses, s.unreadUse(path, d))
		}
	}
	return uses
}

// unreadUse is such a domain as evidence. The domain has no name where a whole directory cannot be read.
func (s *domains) unreadUse(path string, d *domain) Use {
	u := Use{
		Domain: d.Name, PID: d.PID, Role: RoleUnknown, Writable: true, Evidence: s.evidence, Path: path, Problem: d.problem,
	}
	if d.PID == 0 {
		u.doubt = unreadable
	}
	return u
}

// bornAfter says whether a file was certainly made after a moment. A clock that was set since the machine booted, so
// that the moment lies before that, says nothing.
func bornAfter(born, moment time.Time) bool {
	return !born.IsZero() && born.After(moment) && moment.After(procfs.StartedAt(0))
}

// unreadOpen adds what the processes of such domains have open, and the zero ID where any image may be in use.
func (s *domains) unreadOpen(all map[ID][]Use) {
	for path, d := range s.unread {
		switch {
		case !s.running(d):
		case d.PID == 0:
			all[ID{}] = append(all[ID{}], s.unreadUse(path, d))
		default:
			s.proc.Holds(d.PID, func(o *procfs.OpenFile) bool {
				if id := fileID(o); !names(all[id], d.PID) {
					all[id] = append(all[id], s.unreadUse(path, d))
				}
				return false
			})
		}
	}
}

// Pending is a path that a domain names and that does not answer.
type Pending struct {
	Path   string
	Domain string
	Since  time.Time
}

// pendingPaths lists them, the longest waited for first.
func (s *domains) pendingPaths() []Pending {
	var list []Pending
	for l, since := range s.pending {
		list = append(list, Pending{Path: *l.at.Load(), Domain: l.domain.Name, Since: since})
	}
	slices.SortFunc(list, func(a, b Pending) int { return a.Since.Compare(b.Since) })
	return list
}
