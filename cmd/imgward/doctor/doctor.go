// Package doctor looks at a host for what leaves images unprotected, and says what to do about it. It changes nothing.
package doctor

import (
	"context"
	"log/slog"
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

// View is a view that is mounted.
type View struct {
	Mountpoint, Backing string
	Passthrough         bool
	Warnings            []string
}

// Host is what is looked at.
type Host struct {
	Views  []View
	Dead   []string // mountpoints of views that no daemon serves any more
	Policy string   // the default policy file
	Log    *slog.Logger
}

// Examine runs all checks.
func (h *Host) Examine(ctx context.Context) []Finding {
	var list []Finding
	for _, c := range []struct {
		name string
		run  func(context.Context) []Finding
	}{
		{"kernel", h.kernel}, {"policy", h.policy}, {"views", h.views}, {"boot", h.boot}, {"libvirt", h.libvirt}, {"images", h.images}, {"bypass", h.bypasses},
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
