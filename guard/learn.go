// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"
	"strings"

	"imgward/guard/libvirt"
)

// apply takes in one status file that came, changed or went.
func (s *domains) apply(c libvirt.Change) {
	before := s.byPath[c.Path]
	if before != nil {
		s.forget(c.Path, before)
	}
	var d *domain
	if c.Domain != nil {
		d = s.newDomain(c.Domain, c.Path, before)
		if c.Err != nil {
			d.unreadable, d.problem = true, c.Err.Error()
		}
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
		s.unread[path] = d
	}
	for _, l := range d.images {
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
		s.unreadable(c.Path, c.Err, now)
	}
	if !s.readOnce || c.Err != nil || before == nil && now == nil {
		return
	}
	switch {
	case before == nil || before.Blind && now != nil:
		s.changed(now, "started", "")
	case now == nil && !before.Blind:
		s.changed(before, "stopped", "")
	case now != nil && !now.lists(before):
		s.changed(now, "changed", now.comparedWith(before))
	}
}

func (s *domains) forget(path string, d *domain) {
	delete(s.byPath, path)
	delete(s.unread, path)
	if s.byPID[d.PID] == d {
		delete(s.byPID, d.PID)
	}
	for l := range d.all() {
		s.drop(l)
	}
}

// drop takes an image of a domain out of the index.
func (s *domains) drop(l *domainImage) {
	l.dropped = true
	delete(s.awaited, l)
	delete(s.pending, l)
	delete(s.missing, l)
	for _, id := range l.ids {
		s.unlist(id, l)
	}
}

func (s *domains) unlist(id ID, l *domainImage) {
	rest := slices.DeleteFunc(s.byImage[id], func(o *domainImage) bool { return o == l })
	if len(rest) == 0 {
		delete(s.byImage, id)
		return
	}
	s.byImage[id] = rest
}

// comparedWith says in words which images a domain has now and had not before, and the other way round.
func (d *domain) comparedWith(before *domain) string {
	var words []string
	for _, c := range []struct {
		word     string
		from, to *domain
	}{{"added", d, before}, {"removed", before, d}} {
		for _, l := range c.from.images {
			if !slices.ContainsFunc(c.to.images, func(o *domainImage) bool { return o.image == l.image }) {
				words = append(words, strings.TrimSpace(l.image.Target+" "+l.image.Path)+" "+c.word)
			}
		}
	}
	return strings.Join(words, ", ")
}
