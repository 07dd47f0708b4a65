// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"imgward/guard"
)

// history keeps the latest events for a successor, as lines of JSON in the view's runtime directory. When there are
// guard.History of them in the file it becomes the old one, and another is begun: the two hold that many at least.
type history struct {
	path  string
	log   *slog.Logger
	file  *os.File // nil: what happens is not kept
	lines int      // in it
}

func (h *history) old() string { return h.path + ".old" }

// load reads what a predecessor kept, oldest first, and goes on where it ends.
func (h *history) load() (list []guard.Event, err error) {
	for _, path := range []string{h.old(), h.path} {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		h.lines = 0
		for line := range bytes.Lines(text) {
			var e guard.Event
			if json.Unmarshal(line, &e) == nil { // it may have been killed while it wrote
				list = append(list, e)
				h.lines++
			}
		}
	}
	return list[max(0, len(list)-guard.History):], h.open()
}

// clear begins anew: what is there is of another view, whose keeper was killed.
func (h *history) clear() error {
	for _, path := range []string{h.old(), h.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return h.open()
}

func (h *history) open() (err error) {
	h.file, err = os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return err
}

// save adds an event. If it cannot be written, that is said once, and no more is tried.
func (h *history) save(e *guard.Event) {
	if h.file == nil {
		return
	}
	if err := h.add(e); err != nil {
		h.log.Warn("a successor of this worker will not know the events from now on", "error", err)
		h.file.Close()
		h.file = nil
	}
}

func (h *history) add(e *guard.Event) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if h.lines >= guard.History {
		if err := h.turn(); err != nil {
			return err
		}
	}
	h.lines++
	_, err = h.file.Write(append([]byte("\n"), text...)) // first the end of a line that may have been cut short
	return err
}

// turn makes the file the old one, and begins another.
func (h *history) turn() error {
	if err := os.Rename(h.path, h.old()); err != nil {
		return err
	}
	h.file.Close()
	h.lines = 0
	return h.open()
}
