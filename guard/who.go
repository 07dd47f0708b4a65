// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"imgward/guard/layers"
	"imgward/guard/libvirt"
)

// Who implements Checker.
func (g *Guard) Who(ctx context.Context, r *Request) []Use {
	q := g.asked(ctx, r)
	if r.Quick {
		return q.whoever(quickly())
	}
	uses := q.whoever(byFact())
	if !q.fileState().alone { // a loop device has its file open
		uses = append(uses, g.usesOfLayers(ctx, g.Layers(r.Image))...)
	}
	if r.Shown != (ID{}) { // a view asks, which refuses what would pull a file from under a mount; to a copy that is no virtual machine
		uses = append(uses, q.devicesAbove(g.stack().Above(layers.ID(r.Image)))...)
	}
	return uses
}

// asked is a question by nobody: nothing is left out as being the caller's own.
func (g *Guard) asked(ctx context.Context, r *Request) *question {
	return &question{
		Request: &Request{Image: r.Image, Open: r.Open, Openers: r.Openers, Shown: r.Shown}, inForce: g.inForce.Load(), ctx: ctx, g: g,
	}
}

// whoever is all that these sources name, with their programs.
func (q *question) whoever(sources []source) []Use {
	uses := q.gather(sources)
	q.namePrograms(uses)
	return uses
}

// namePrograms names what processes execute, where no domain is known that they run.
func (r *inForce) namePrograms(uses []Use) {
	for i := range uses {
		u := &uses[i]
		if u.PID == 0 || u.Domain != "" {
			continue
		}
		if p, err := r.procs.Other(u.PID); err == nil && p.Exe != "" {
			u.Program = exeName(p.Exe)
		} else if err == nil {
			u.Program = p.Comm
		}
	}
}

// Status is the state of the evidence, for `imgward status`.
type Status struct {
	Running  int               // domains with a live VMM
	Stale    []string          // domains whose status file is there and whose VMM is not
	Problems []libvirt.Problem // status files and directories that cannot be read
	Pending  []Pending         // paths of domains that do not answer
}

// Status reads the evidence again and sums it up.
func (g *Guard) Status(ctx context.Context) (Status, error) {
	st, err := g.domains.status(ctx)
	_ = g.saved.locked(ctx, func() {
		st.Problems = append(st.Problems, g.saved.index.Problems()...)
		st.Pending = append(st.Pending, g.saved.pendingPaths()...)
	})
	return st, err
}

func (s *domains) status(ctx context.Context) (Status, error) {
	var st Status
	err := s.locked(ctx, func() {
		for _, d := range s.byPath {
			switch {
			case s.running(d):
				st.Running++
			case d.Running():
				st.Stale = append(st.Stale, d.Name)
			}
		}
		st.Problems, st.Pending = s.index.Problems(), s.pendingPaths()
	})
	return st, err
}
