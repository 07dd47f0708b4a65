package guard

import (
	"context"

	"imgward/guard/policy"
)

// Ruled implements Checker.
func (g *Guard) Ruled(ctx context.Context) func(path string, id ID) bool {
	r := g.regime.Load()
	if !r.policy.Uses(policy.Always) && !r.policy.Uses(policy.Defined) {
		return nil
	}
	var defined map[ID][]Use
	if r.defined != nil {
		var err error
		if defined, err = r.defined.all(ctx); err != nil {
			defined[ID{}] = unread()
		}
	}
	return func(path string, id ID) bool {
		rule := r.policy.For(path)
		switch rule.Protect {
		case policy.Always:
			return rule.Deny&policy.Rename != 0
		case policy.Defined:
			return rule.Deny&policy.Rename != 0 && len(defined[id])+len(defined[ID{}]) > 0
		}
		return false
	}
}
