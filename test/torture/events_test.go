// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/guard"
	"imgward/test/harness"
)

// TestEvents: take-overs leave no gap in the event stream, neither for who follows it nor for who asks afterwards.
func TestEvents(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	v.Expected = []string{"the worker died"}
	file := filepath.Join(v.Dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	follower := harness.Spawn(t, filepath.Join(h.Dir, "followed.log"), harness.Imgward(), "events", "-f", "--json", v.Dir)
	const rounds = 5
	for i := range rounds {
		reason := fmt.Sprintf("round %d", i)
		harness.Run(t, harness.Imgward(), "allow", "--op", "truncate", "--for", "1h", "--reason", reason, file).OK(t)
		before := v.Status(t)
		kill(t, before.PID, syscall.SIGKILL)
		harness.Until(t, "a successor serves", func() bool { return v.Status(t).PID != before.PID })
	}
	want := 1 + 2*rounds // the view's begin, then an exception and a take-over each
	asked := events(t, harness.Run(t, harness.Imgward(), "events", "--json", v.Dir).OK(t))
	if len(asked) != want {
		t.Errorf("the history has %d events, want %d", len(asked), want)
	}
	harness.Until(t, "the follower has all", func() bool { return len(events(t, follower.Logged(t))) >= want })
	followed := events(t, follower.Logged(t))
	for i, e := range followed {
		kind := guard.EventTakeover
		switch {
		case i == 0:
			kind = guard.EventBegin
		case i%2 == 1:
			kind = guard.EventException
		}
		if e.Type != kind || e.ID != followed[0].ID+uint64(i) {
			t.Errorf("event %d that was followed is %s %d, want %s %d", i+1, e.Type, e.ID, kind, followed[0].ID+uint64(i))
		}
	}
	v.End(t)
	harness.Until(t, "the follower ends with the view", func() bool { return !follower.Alive() })
}

func events(t *testing.T, text string) (list []guard.Event) {
	t.Helper()
	for line := range strings.Lines(text) {
		var e guard.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, e)
	}
	return list
}
