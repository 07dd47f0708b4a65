// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// window is when copies may begin: every day from one time of day to another, which may be that of the next day.
type window struct{ from, to time.Duration }

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
	return &window{a.Sub(midnight), b.Sub(midnight)}, nil
}

// opens is when a copy may begin, at now or later.
func (w *window) opens(now time.Time) time.Time {
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
			return now
		case now.Before(from):
			return from
		}
	}
}

// wait returns when a copy may begin.
func (w *window) wait(ctx context.Context, log *slog.Logger) error {
	if w == nil {
		return nil
	}
	opens := w.opens(time.Now())
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
