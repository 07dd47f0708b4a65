// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/policy"
)

// PolicyText is a policy to be tried.
type PolicyText struct {
	Source string `json:"source"`
	Text   string `json:"text"`
}

// PolicyChange says what another policy would change for one image, for an outsider.
type PolicyChange struct {
	Type   string      `json:"type"` // "policy-change"
	Path   string      `json:"path"`
	Uses   []guard.Use `json:"uses,omitempty"`
	Before Effect      `json:"before"`
	After  Effect      `json:"after"`
}

// PolicyTrap says in which way a policy does not do what its words say; "imgward policy check --json" prints it.
type PolicyTrap struct {
	Type    string `json:"type"` // "policy-trap"
	Message string `json:"message"`
}

// Effect is what a policy does to operations on an image as things are now.
type Effect struct {
	Refused policy.Ops `json:"refused"`
	// Audited operations are let through and logged.
	Audited policy.Ops           `json:"audited"`
	Errno   string               `json:"errno,omitempty"`
	Writer  policy.ForeignWriter `json:"foreign_writer"`
	Message string               `json:"message,omitempty"`
}

// tryPolicy answers with a PolicyChange for each regular file of the view for which the policy would change something.
func (s *Server) tryPolicy(w http.ResponseWriter, r *http.Request) {
	var t PolicyText
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPolicyBody)).Decode(&t); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("the request is not understood: %w", err))
		return
	}
	next, err := policy.Parse(t.Source, []byte(t.Text))
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err)
		return
	}
	trial, err := s.newTrial(r.Context(), next)
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer trial.Close()
	if err := trial.walk(r.Context(), s.Tree, func(c *PolicyChange) { write(w, c) }); err != nil {
		write(w, Error{Type: "error", Message: err.Error()})
	}
}

// maxPolicyBody has room for the longest policy that policy.Parse takes, with JSON's escapes.
const maxPolicyBody = 4 << 20

// trial compares two policies.
type trial struct {
	now, next *policy.Policy
	inUse     map[guard.ID][]guard.Use
	// defined is a guard that protects what persistent domains would use, for asking about that.
	defined *guard.Guard
}

func (s *Server) newTrial(ctx context.Context, next *policy.Policy) (*trial, error) {
	t := &trial{now: s.Guard.Policy(), next: next, inUse: map[guard.ID][]guard.Use{}}
	for _, img := range s.FS.Images(ctx) {
		t.inUse[img.ID] = img.Uses
	}
	p := policy.Default()
	p.Default.Protect = policy.Defined
	var err error
	t.defined, err = guard.New(guard.Config{Host: s.Host, Policy: p})
	return t, err
}

func (t *trial) Close() { _ = t.defined.Close() }

// walk compares the two for each regular file of a tree. It follows no symbolic links.
func (t *trial) walk(ctx context.Context, tree *os.File, each func(*PolicyChange)) error {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", tree.Fd()))
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return nil // gone by now, or no image
		}
		before, after := t.now.For(path), t.next.For(path)
		if sameRule(before, after) {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		c := t.compare(ctx, idOf(info), before, after)
		if c.Before != c.After {
			c.Path = path
			each(c)
		}
		return nil
	})
}

func idOf(info fs.FileInfo) guard.ID {
	st := info.Sys().(*syscall.Stat_t)
	return guard.StatID(&unix.Stat_t{Dev: st.Dev, Ino: st.Ino, Mode: st.Mode, Rdev: st.Rdev})
}

func sameRule(a, b *policy.Rule) bool {
	return a.Protect == b.Protect && a.Deny == b.Deny && a.Mode == b.Mode && a.Errno == b.Errno &&
		a.Writer == b.Writer && a.Message == b.Message
}

func (t *trial) compare(ctx context.Context, id guard.ID, before, after *policy.Rule) *PolicyChange {
	uses := slices.DeleteFunc(slices.Clone(t.uses(id)), func(u guard.Use) bool { return u.Evidence == guard.EvidencePolicy })
	running := len(uses) > 0
	defined := running
	if !running && (before.Protect == policy.Defined || after.Protect == policy.Defined) {
		v := t.defined.Check(ctx, &guard.Request{Op: guard.OpTruncate, Image: id})
		defined, uses = !v.Allowed, v.Uses
	}
	return &PolicyChange{
		Type: "policy-change", Uses: uses,
		Before: effect(before, running, defined), After: effect(after, running, defined),
	}
}

// uses are those of an image, and of the domains that may be using any.
func (t *trial) uses(id guard.ID) []guard.Use { return append(t.inUse[id], t.inUse[guard.ID{}]...) }

// effect is what a rule does to an image that is used by a running domain, by one that is defined, or by none.
func effect(r *policy.Rule, running, defined bool) Effect {
	protected := r.Protect == policy.Always || r.Protect == policy.Running && running || r.Protect == policy.Defined && defined
	e := Effect{Writer: r.Writer}
	if !protected {
		return e
	}
	if r.Mode == policy.Audit {
		e.Audited = r.Deny
		return e
	}
	e.Refused, e.Errno, e.Message = r.Deny, unix.ErrnoName(r.Errno), r.Message
	return e
}
