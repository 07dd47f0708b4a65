// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"imgward/cmd/imgward/terminal"
	"imgward/guard"
)

// journalHandler writes to the journal with structured fields, so that `journalctl IMGWARD_DOMAIN=rhevm` finds what was
// refused for that domain.
type journalHandler struct{ attrs []slog.Attr }

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{attrs: append(slices.Clone(h.attrs), attrs...)}
}

// WithGroup implements slog.Handler. Fields have one flat name space.
func (h *journalHandler) WithGroup(string) slog.Handler { return h }

// Handle implements slog.Handler.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "imgward"}
	text, sentence := []string{r.Message}, false
	add := func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		if a.Key == guard.MessageID {
			fields["MESSAGE_ID"], sentence = value, true
			return true
		}
		fields["IMGWARD_"+fieldName(a.Key)] = value
		text = append(text, a.Key+"="+terminal.Safe(value))
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if sentence {
		text = text[:1]
	}
	// Fields hold names as they are; the message is for people, whose terminal must not take them for something else.
	return journal.Send(strings.Join(text, " "), priority(r.Level), fields)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	}
	return journal.PriInfo
}

// fieldName turns an attribute's key into what the journal allows: A-Z, 0-9 and underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(key))
}
