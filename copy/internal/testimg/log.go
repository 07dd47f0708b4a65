// SPDX-License-Identifier: Apache-2.0

package testimg

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Log keeps what was logged, for tests of warnings.
type Log struct {
	mu    sync.Mutex
	Lines []string
}

func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Lines = append(l.Lines, string(p))
	return len(p), nil
}

func (l *Log) Has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.Lines, func(s string) bool { return strings.Contains(s, text) })
}
