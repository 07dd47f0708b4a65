// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindow(t *testing.T) {
	for _, c := range []struct{ window, now, opens string }{
		{"22:00-05:00", "23:30", "23:30"},
		{"22:00-05:00", "04:59", "04:59"},
		{"22:00-05:00", "05:00", "22:00"},
		{"22:00-05:00", "12:00", "22:00"},
		{"09:00-17:30", "09:00", "09:00"},
		{"09:00-17:30", "08:00", "09:00"},
		{"09:00-17:30", "17:30", "09:00 the next day"},
	} {
		w, err := parseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		now, err := time.ParseInLocation("2006-01-02 15:04", "2026-11-29 "+c.now, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		opens, closes := w.next(now)
		got := opens.Format("15:04")
		if opens.Day() != now.Day() {
			got += " the next day"
		}
		if end := closes.Format("15:04"); end != c.window[6:] || !closes.After(opens) || closes.Sub(opens) > 24*time.Hour {
			t.Errorf("%s at %s: from %v to %v", c.window, c.now, opens, closes)
		}
		if got != c.opens {
			t.Errorf("%s at %s: begins at %s, want %s", c.window, c.now, got, c.opens)
		}
	}
	for _, bad := range []string{"22:00", "22-5", "22:00-22:00", "25:00-05:00", "-", "22:00-05:00-06:00"} {
		if _, err := parseWindow(bad); err == nil {
			t.Errorf("%q is taken for a window", bad)
		}
	}
}

// TestPause: what has begun stops when the time is over, and goes on the next day; without --pause it goes on at once.
func TestPause(t *testing.T) {
	for _, pauses := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w, err := parseWindow("22:00-05:00")
			if err != nil {
				t.Fatal(err)
			}
			w.pauses = pauses
			now := time.Now()
			time.Sleep(time.Until(time.Date(now.Year(), now.Month(), now.Day(), 23, 0, 0, 0, now.Location())))
			var parts []time.Duration
			left := 8 * time.Hour // of work, in a window of 7
			err = w.run(t.Context(), slog.New(slog.DiscardHandler), func(ctx context.Context, again bool) error {
				begun := time.Now()
				if again != (len(parts) > 0) {
					t.Errorf("part %d: again is %v", len(parts), again)
				}
				select {
				case <-time.After(left):
					parts = append(parts, time.Since(begun))
					return nil
				case <-ctx.Done():
				}
				parts = append(parts, time.Since(begun))
				left -= time.Since(begun)
				return context.Cause(ctx)
			})
			if err != nil {
				t.Error(err)
			}
			want := []time.Duration{8 * time.Hour}
			if pauses {
				want = []time.Duration{6 * time.Hour, 2 * time.Hour}
			}
			if len(parts) != len(want) || parts[0] != want[0] || parts[len(parts)-1] != want[len(want)-1] {
				t.Errorf("pauses %v: took %v, want %v", pauses, parts, want)
			}
			// An error of the copy, and an interruption, end it.
			failed, calls := errors.New("failed"), 0
			err = w.run(t.Context(), slog.New(slog.DiscardHandler), func(context.Context, bool) error { calls++; return failed })
			if !errors.Is(err, failed) || calls != 1 {
				t.Errorf("%v after %d calls", err, calls)
			}
		})
	}
}
