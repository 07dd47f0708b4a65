package guard

import (
	"context"

	"imgward/guard/libvirt"
)

// Who says who uses the image, on all evidence, for `imgward who`. open and openers are as in Request, and both may be
// left out. Nobody is asking, so nothing is left out as being the caller's own.
func (g *Guard) Who(ctx context.Context, id ID, open func() (int, error), openers ...Opener) []Use {
	q := &inquiry{
		Request: &Request{Image: id, Open: open, Openers: openers}, regime: g.regime.Load(), ctx: ctx, g: g,
	}
	uses := append(q.listed(), q.policyUses()...)
	uses = append(uses, q.viewUses(q.unlisted(q.openVMMs(), uses))...)
	for _, u := range q.directUses() {
		if !names(uses, u.PID) {
			uses = append(uses, u)
		}
	}
	if len(uses) == 0 {
		uses = q.lockUses()
	}
	return uses
}

// Status is the state of the evidence, for `imgward status`.
type Status struct {
	Running  int               // domains with a live VMM
	Stale    []string          // domains whose status file is there and whose VMM is not
	Problems []libvirt.Problem // status files and directories that cannot be read
}

// Status reads the evidence again and sums it up.
func (g *Guard) Status(ctx context.Context) (Status, error) { return g.domains.status(ctx) }

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
		st.Problems = s.index.Problems()
	})
	return st, err
}
