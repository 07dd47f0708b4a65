package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
)

// defaultLog is where the daemon writes on hosts without a journal.
const defaultLog = "/var/log/imgward.log"

// openLog opens the daemon's log: the terminal in the foreground, a file that was asked for, the journal, or a file.
func openLog(path string, foreground bool) (*slog.Logger, *os.File, error) {
	switch {
	case path != "":
	case foreground && !(os.Getenv("JOURNAL_STREAM") != "" && journal.Enabled()): // a terminal, no service
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil, nil
	case journal.Enabled():
		return slog.New(&journalHandler{}), nil, nil
	default:
		path = defaultLog
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	return slog.New(slog.NewTextHandler(f, nil)), f, nil
}
