// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"imgward/guard/libvirt"
)

// A domain whose state was saved (virsh managedsave, virsh save) does not run, and its disks must stay as they are until it
// does again: the guest's memory holds what it thinks is on them. So they are in use, with what is behind them, and so is the
// file with the state.
//
// libvirt keeps managed states in a directory of its own, and removes one when the domain is started. Those of virsh save may
// lie anywhere; in a view they are looked for (stateFiles).

// newSaved makes the evidence of saved domains.
func (g *Guard) newSaved() *domains {
	dirs := g.config.SaveDirs
	if root := g.config.ViewRoot; root != "" {
		dirs = nil
		for _, d := range g.config.SaveDirs {
			if !Within(d.Path, root) { // or it is found as any file of the view is, without going through the view
				dirs = append(dirs, d)
			}
		}
	}
	index := libvirt.New(libvirt.Config{Dirs: dirs, PoolDirs: g.config.PoolDirs, Files: libvirt.SavedStates})
	s := newDomains(g.config.Host, g.domains.proc, index, g.isVMM)
	s.evidence, s.unreadable, s.hangs = EvidenceSaved, g.domainUnreadable, g.pathHangs
	s.more = g.states.changes
	return s
}

// Within says whether a path is a directory or below it. Both are clean and absolute.
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// savedUses says which saved domains need the image. What holds a state is libvirt's to change: virsh save-image-edit writes
// into it.
func (q *question) savedUses() []Use {
	uses, err := q.g.saved.uses(q.ctx, q.asked())
	if err != nil {
		return unread()
	}
	if len(uses) == 0 {
		uses = q.memoryUses()
	}
	if q.caller.Class != ClassManager {
		return uses
	}
	var rest []Use
	for _, u := range uses {
		if u.Role != RoleSavedState && u.Role != RoleSnapshot {
			rest = append(rest, u)
		}
	}
	return rest
}

// noteWriter remembers that libvirt opens a file of the view for writing: that may become a saved state.
func (q *question) noteWriter() {
	if q.Op == OpOpenWrite && q.caller.Class == ClassManager {
		q.g.states.suspect(q.hostPath())
	}
}

// savedReason is the clause that names a use by a saved domain, and says how that ends.
func savedReason(u Use) string {
	domain, state := printable(u.Domain), printable(u.State)
	if u.Role == RoleSnapshot {
		return fmt.Sprintf("it is the memory of snapshot %s of domain %s (%s); virsh snapshot-delete %s %s ends that",
			printable(u.Target), domain, state, domain, printable(u.Target))
	}
	how := fmt.Sprintf("virsh restore %s", state)
	if filepath.Base(state) == domain+".save" && filepath.Base(filepath.Dir(state)) == "save" {
		how = fmt.Sprintf("start it, or virsh managedsave-remove %s", domain)
	}
	what := part(u)
	if u.Role == RoleSavedState {
		what = "the saved state"
	}
	return fmt.Sprintf("it is %s of saved domain %s (%s); %s", what, domain, state, how)
}

// wentOn says whether a domain runs that has run on from a saved state, or without it: then nobody needs that any more. Its VMM
// was started later; or it is the one that was saved, and its status file says later that it runs, as after a snapshot.
func (g *Guard) wentOn(ctx context.Context, d *libvirt.Domain) (went bool) {
	_ = g.domains.locked(ctx, func() {
		for _, r := range g.domains.byPath {
			if r.UUID == d.UUID && g.domains.running(r) {
				went = went || r.startedAfter(d.Written) || r.State == "running" && r.Written.After(d.Written)
			}
		}
	})
	return went
}

// runs says whether a domain runs.
func (g *Guard) runs(ctx context.Context, uuid string) (yes bool) {
	_ = g.domains.locked(ctx, func() {
		for _, r := range g.domains.byPath {
			yes = yes || r.UUID == uuid && g.domains.running(r)
		}
	})
	return yes
}
