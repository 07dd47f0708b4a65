// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"imgward/guard/policy"
)

// Defined lists the images of persistent domains, running or not, where the policy protects those; otherwise nothing.
func (g *Guard) Defined(ctx context.Context) map[ID][]Use {
	r := g.inForce.Load()
	if r.defined == nil {
		return nil
	}
	defined, err := r.defined.all(ctx)
	if err != nil {
		g.log.Warn("the definitions of domains are not complete", "err", err)
	}
	return defined
}

// Ruled implements Checker.
func (g *Guard) Ruled(ctx context.Context) func(path string, id ID) bool {
	r := g.inForce.Load()
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
