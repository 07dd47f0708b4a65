// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at a host for what leaves images unprotected, and says what to do about it. It changes nothing.
package doctor

import (
	"context"

	"imgward/cmd/imgward/control"
	"imgward/guard/policy"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Note    Level = "note"    // good to know
	Problem Level = "problem" // something is not protected, or will not work
)

// Finding is one thing that was looked at.
type Finding struct {
	Type  string `json:"type"` // "finding"
	Check string `json:"check"`
	Level Level  `json:"level"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// View is a view that is mounted, as its daemon describes it.
type View struct {
	control.View
	Images []control.Image // in use, below it
	Policy *policy.Policy  // in force
	// Unlisted are the VMMs that the policy's lists do not name.
	Unlisted []control.VMM
}

// Host is what is looked at.
type Host struct {
	Views  []View
	Dead   []string // mountpoints of views that no daemon serves any more
	Policy string   // the default policy file
	// Elsewhere are the images in use that are below no view.
	Elsewhere []control.Image
	// Second is nil where the second layer's daemon does not run.
	Second *Second
}

// Examine runs all checks.
func (h *Host) Examine(ctx context.Context) []Finding {
	var list []Finding
	for _, c := range []struct {
		name string
		run  func(context.Context) []Finding
	}{
		{"kernel", h.kernel}, {"policy", h.policy}, {"views", h.views}, {"boot", h.boot}, {"libvirt", h.libvirt}, {"images", h.images}, {"second layer", h.second}, {"vmms", h.vmms},
		{"bypass", h.bypasses}, {"bystanders", h.bystanders}, {"backups", h.backups},
		{"exports", h.exports}, {"confinement", h.confinement},
	} {
		for _, f := range c.run(ctx) {
			f.Type, f.Check = "finding", c.name
			list = append(list, f)
		}
	}
	return list
}

func ok(what string) Finding          { return Finding{Level: OK, What: what} }
func note(what, do string) Finding    { return Finding{Level: Note, What: what, Do: do} }
func problem(what, do string) Finding { return Finding{Level: Problem, What: what, Do: do} }
