// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// window is when copies may begin: every day from one time of day to another, which may be that of the next day.
type window struct {
	from, to time.Duration
	pauses   bool // what is under way stops when the time is over
}

// parseWindow reads "22:00-05:00".
func parseWindow(s string) (*window, error) {
	if s == "" {
		return nil, nil
	}
	from, to, ok := strings.Cut(s, "-")
	a, err := time.Parse("15:04", from)
	b, err2 := time.Parse("15:04", to)
	if !ok || err != nil || err2 != nil || a.Equal(b) {
		return nil, fmt.Errorf("--between=%s: two times of day, as 22:00-05:00", s)
	}
	midnight := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	return &window{from: a.Sub(midnight), to: b.Sub(midnight)}, nil
}

// next is when a copy may begin, at now or later, and until when it may go on.
func (w *window) next(now time.Time) (opens, closes time.Time) {
	at := func(days int, of time.Duration) time.Time { // by the clock on the wall, also when that is changed
		return time.Date(now.Year(), now.Month(), now.Day()+days, int(of/time.Hour), int(of/time.Minute%60), 0, 0, now.Location())
	}
	for days := -1; ; days++ {
		from, to := at(days, w.from), at(days, w.to)
		if w.to < w.from {
			to = at(days+1, w.to)
		}
		switch {
		case !now.Before(from) && now.Before(to):
			return now, to
		case now.Before(from):
			return from, to
		}
	}
}

// wait returns when a copy may begin.
func (w *window) wait(ctx context.Context, log *slog.Logger) error {
	if w == nil {
		return nil
	}
	opens, _ := w.next(time.Now())
	if d := time.Until(opens); d > 0 {
		log.Info("waiting until copies may begin (--between)", "at", opens.Format(time.DateTime))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
		}
	}
	return nil
}

// errPaused ends a copy whose time is over.
var errPaused = errors.New("the time that --between gives is over")

// run has something done that may begin now: in one go, or, with --pause, in as many parts as it takes.
func (w *window) run(ctx context.Context, log *slog.Logger, do func(ctx context.Context, again bool) error) error {
	for again := false; ; again = true {
		part, end := ctx, func() {}
		if w != nil && w.pauses {
			_, closes := w.next(time.Now())
			part, end = context.WithDeadlineCause(ctx, closes, errPaused)
		}
		err := do(part, again)
		end()
		if !errors.Is(err, errPaused) || ctx.Err() != nil {
			return err
		}
		if err := w.wait(ctx, log); err != nil {
			return err
		}
	}
}
