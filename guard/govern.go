// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"path/filepath"
	"strings"

	"imgward/guard/policy"
)

// Kind is the kind of operation that policies and exceptions speak of.
func (o Op) Kind() policy.Ops {
	switch o {
	case OpTruncate, OpFallocate:
		return policy.Truncate
	case OpUnlink:
		return policy.Unlink
	case OpRename, OpReplace, OpRenameDir:
		return policy.Rename
	case OpSetFlags:
		return policy.SetFlags
	}
	return policy.Write // OpOpenWrite, OpWrite, OpCopyInto, and whatever is not known here: it is no less harmful
}

// path is the name that the caller used.
func (q *question) path() string {
	if q.name == nil {
		name := q.Path()
		q.name = &name
	}
	return *q.name
}

// governing is the policy's rule for the image, by the name that the caller used.
func (q *question) governing() *policy.Rule {
	if q.rule == nil {
		q.rule = &q.policy.Default
		if len(q.policy.Rules) > 0 && q.Path != nil {
			q.rule = q.policy.For(q.g.below(q.path()))
		}
	}
	return q.rule
}

// forbids says whether the policy has anything against the operation, provided that the image is protected.
func (q *question) forbids(op Op) bool {
	r := q.governing()
	return r.Protect != policy.Never && r.Deny&op.Kind() != 0
}

// permittedReason is the clause that says why the policy has nothing against the operation.
func (q *question) permittedReason() string {
	if q.governing().Protect == policy.Never {
		return "the policy protects it never"
	}
	return "the policy does not refuse " + string(q.Op)
}

// below makes a path relative to the view. A path outside of it has no rule but the default one.
func (g *Guard) below(path string) string {
	if !filepath.IsAbs(path) {
		return path
	}
	root := g.config.ViewRoot
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
	if root == "" || !ok {
		return ""
	}
	return rest
}

// policyUses are the reasons that only the policy makes reasons of.
func (q *question) policyUses() []Use {
	switch q.governing().Protect {
	case policy.Always:
		return []Use{{Role: RoleUnknown, Evidence: EvidencePolicy}}
	case policy.Defined:
		if q.defined == nil || q.caller.Class == ClassManager {
			return nil // libvirt works on domains that are shut off: snapshots, resizing, removal with the domain
		}
		uses, err := q.defined.uses(q.ctx, q.asked())
		if err != nil {
			return []Use{{Role: RoleUnknown, Evidence: EvidencePolicy, doubt: notRead}}
		}
		return uses
	}
	return nil
}
