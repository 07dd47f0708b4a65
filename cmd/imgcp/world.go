// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
)

// world is what every subcommand needs of the host.
type world struct {
	log   *slog.Logger
	users *users
}

func newWorld(level slog.Level) (*world, error) {
	log := newConsole(os.Stderr, level)
	evidence := log
	if level == slog.LevelInfo { // that domains change meanwhile is for -v
		evidence = newConsole(os.Stderr, slog.LevelWarn)
	}
	u, err := newUsers(evidence)
	return &world{log: log, users: u}, err
}

// close does not wait for what the guard may still be reading: the process ends.
func (w *world) close() { go w.users.g.Close() }

// logLevel is what -q and -v ask for. Notes that explain what is being done are for terminals.
func (f *copyFlags) logLevel() slog.Level {
	switch {
	case f.verbose:
		return slog.LevelDebug
	case f.quiet:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
