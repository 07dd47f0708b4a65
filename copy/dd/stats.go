// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"fmt"
	"math"
	"time"
)

// Stats is what dd counts.
type Stats struct {
	FullIn, PartialIn   int64 // records
	FullOut, PartialOut int64
	Bytes               int64 // written
}

// Counted is the statistics of n bytes that were copied without short reads or writes.
func (o *Operands) Counted(n int64) Stats {
	in, out := split(n, o.IBS), split(n, o.OBS)
	return Stats{in.Records, in.partial(), out.Records, out.partial(), n}
}

func split(n, size int64) Amount { return Amount{n / size, n % size} }

func (a Amount) partial() int64 {
	if a.Bytes > 0 {
		return 1
	}
	return 0
}

// Records is the first two lines of dd's report.
func (s Stats) Records() string {
	return fmt.Sprintf("%d+%d records in\n%d+%d records out\n", s.FullIn, s.PartialIn, s.FullOut, s.PartialOut)
}

// Transfer is the last line of dd's report.
func (s Stats) Transfer(d time.Duration) string {
	return fmt.Sprintf("%s, %g s, %s", s.amount(), significant(d.Seconds()), s.rate(d))
}

// ProgressLine is the line of status=progress.
func (s Stats) ProgressLine(d time.Duration) string {
	return fmt.Sprintf("%s, %.0f s, %s", s.amount(), d.Seconds(), s.rate(d))
}

func (s Stats) amount() string {
	plural := "s"
	if s.Bytes == 1 {
		plural = ""
	}
	switch {
	case s.Bytes < 1000:
		return fmt.Sprintf("%d byte%s copied", s.Bytes, plural)
	case s.Bytes < 1024:
		return fmt.Sprintf("%d bytes (%s) copied", s.Bytes, human(float64(s.Bytes), 1000))
	}
	return fmt.Sprintf("%d bytes (%s, %s) copied", s.Bytes, human(float64(s.Bytes), 1000), human(float64(s.Bytes), 1024))
}

func (s Stats) rate(d time.Duration) string {
	if d <= 0 {
		return "Infinity B/s"
	}
	return human(float64(s.Bytes)/d.Seconds(), 1000) + "/s"
}

// significant rounds to what %g prints in C: six digits.
func significant(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// human is a number of bytes with a unit, one decimal below ten.
func human(v, base float64) string {
	const units = "kMGTPE"
	if v < base {
		return fmt.Sprintf("%.0f B", v)
	}
	i := -1
	for v >= base && i < len(units)-1 {
		v /= base
		i++
	}
	unit := units[i : i+1]
	if base == 1024 {
		unit = string("KMGTPE"[i]) + "i"
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %sB", v, unit)
	}
	return fmt.Sprintf("%.0f %sB", v, unit)
}
