// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bufio"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Status is the "view" line of `imgward status --json`.
type Status struct {
	Mountpoint  string `json:"mountpoint"`
	PID         int    `json:"pid"` // of the worker
	KeeperPID   int    `json:"keeper_pid"`
	Passthrough bool   `json:"passthrough"`
	Generation  int    `json:"generation"`
	Takeovers   int    `json:"takeovers"`
	Refusals    int    `json:"refusals"`
	Nodes       int    `json:"nodes"`
	Handles     int    `json:"handles"`

	Warnings []string `json:"warnings"`
}

// Use is one reason why an image is in use.
type Use struct {
	Domain   string `json:"domain"`
	PID      int    `json:"pid"`
	Target   string `json:"target"`
	Role     string `json:"role"`
	Evidence string `json:"evidence"`
}

// InUse is an "image" line of `imgward status --json`.
type InUse struct {
	Path string `json:"path"`
	Uses []Use  `json:"uses"`
}

// Refusal is a "refusal" line of `imgward events --json`.
type Refusal struct {
	Time   time.Time `json:"time"`
	Op     string    `json:"op"`
	Path   string    `json:"path"` // relative to the view
	PID    int       `json:"pid"`
	Comm   string    `json:"comm"`
	UID    int       `json:"uid"`
	Domain string    `json:"domain"`
	Target string    `json:"target"`
	Errno  any       `json:"errno"`
}

// Status asks for the view's state.
func (v *View) Status(t testing.TB) Status {
	t.Helper()
	views := lines[Status](t, "view", v.host.Exec(t, Imgward(), "status", "--json", v.Dir).OK(t))
	if len(views) != 1 {
		t.Fatalf("imgward status %s: %d views", v.Dir, len(views))
	}
	return views[0]
}

// InUse lists the images in use, by path relative to the view.
func (v *View) InUse(t testing.TB) map[string][]Use {
	t.Helper()
	found := make(map[string][]Use)
	for _, i := range lines[InUse](t, "image", v.host.Exec(t, Imgward(), "status", "--json", v.Dir).OK(t)) {
		found[i.Path] = i.Uses
	}
	return found
}

// Refusals lists the refusals since a moment, oldest first; natively there are none. By time, and not by number: the view
// remembers the latest ones only.
func (v *View) Refusals(t testing.TB, since time.Time) []Refusal {
	t.Helper()
	if Native() {
		return nil
	}
	all := lines[Refusal](t, "refusal", v.host.Exec(t, Imgward(), "events", "--json", v.Dir).OK(t))
	return slices.DeleteFunc(all, func(r Refusal) bool { return r.Time.Before(since) })
}

// lines decodes the JSON lines of one type.
func lines[T any](t testing.TB, kind, text string) []T {
	t.Helper()
	var found []T
	in := bufio.NewScanner(strings.NewReader(text))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var head struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(in.Bytes(), &head); err != nil {
			t.Fatalf("not JSON: %q: %v", in.Text(), err)
		}
		if head.Type != kind {
			continue
		}
		var one T
		if err := json.Unmarshal(in.Bytes(), &one); err != nil {
			t.Fatalf("%s: %q: %v", kind, in.Text(), err)
		}
		found = append(found, one)
	}
	return found
}
