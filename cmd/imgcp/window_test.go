// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
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
		opens := w.opens(now)
		got := opens.Format("15:04")
		if opens.Day() != now.Day() {
			got += " the next day"
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
