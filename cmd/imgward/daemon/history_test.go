// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"imgward/guard"
)

// successor is the history as the next worker finds it.
func successor(t *testing.T, path string) (*history, []guard.Event) {
	t.Helper()
	h := &history{path: path, log: slog.New(slog.DiscardHandler)}
	list, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	return h, list
}

// TestHistory: the latest events are handed on, however many there were, and whoever was killed while it wrote one.
func TestHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	h, _ := successor(t, path)
	next := uint64(1)
	add := func(n int) {
		for range n {
			h.save(&guard.Event{Type: guard.EventRefusal, ID: next, Path: "vm\n.img"})
			next++
		}
	}
	holds := func(first, last uint64) {
		t.Helper()
		var list []guard.Event
		h, list = successor(t, path)
		if len(list) != int(last-first+1) || list[0].ID != first || list[len(list)-1].ID != last || list[0].Path != "vm\n.img" {
			t.Errorf("%d events are handed on, from %+v; want %d to %d", len(list), list[:min(1, len(list))], first, last)
		}
	}
	add(5)
	holds(1, 5)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("\n{\"type\":\"refu")
	f.Close()
	add(2)
	holds(1, 7)

	add(3 * guard.History)
	holds(7+2*guard.History+1, 7+3*guard.History)
	for _, p := range []string{path, h.old()} {
		if s, err := os.Stat(p); err != nil || s.Size() > guard.History*100 || s.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, s, err)
		}
	}

	if err := h.clear(); err != nil {
		t.Fatal(err)
	}
	if _, list := successor(t, path); len(list) != 0 {
		t.Errorf("%d events are left of another view", len(list))
	}
}

// TestHistoryFull: where nothing can be written, events are events all the same.
func TestHistoryFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	h := &history{path: path, log: slog.New(slog.DiscardHandler)}
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.save(&guard.Event{ID: 1})
	}
	if h.file != nil {
		t.Error("it is written to a full disk again and again")
	}
}
