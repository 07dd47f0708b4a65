// SPDX-License-Identifier: Apache-2.0

// Package quiet says with a measurement how far it can be believed: the machine's load, and whether its rounds agree.
package quiet

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Load is the machine's load average over the last minute, as the kernel prints it; "unknown" where there is none.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// Ratio prints the median of a ratio measured in several rounds with the least and the most of them. If these differ by more
// than a factor of two, something else has disturbed the rounds, and the ratio is said to be no result.
func Ratio(rounds []float64) string {
	if len(rounds) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(rounds))
	least, most := sorted[0], sorted[len(sorted)-1]
	text := fmt.Sprintf("%.2f (%.2f–%.2f)", sorted[len(sorted)/2], least, most)
	if most > 2*least {
		text += " rounds disagree"
	}
	return text
}
