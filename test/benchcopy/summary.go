// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"imgward/test/quiet"
)

// summary holds imgcp against the best peer of each row.
type summary struct{ lines []string }

func (s *summary) add(fs, row string, durable bool, results []result) {
	var ours, best *result
	for i := range results {
		r := &results[i]
		switch {
		case r.tool.limit != nil:
			continue
		case r.tool.ours:
			if ours == nil || r.tool.through { // the view's row has both
				ours = r
			}
		case best == nil || r.median(seconds) < best.median(seconds):
			best = r
		}
	}
	if ours == nil || best == nil {
		return
	}
	s.lines = append(s.lines, fmt.Sprintf("| %s | %s | %s | %s | %s %s | %s | %.0f / %.0f | %.0f | %s |", fs, row, mode(durable), ours.spread(),
		best.tool.name, best.spread(), ratio(*ours, *best),
		ours.median(allocation)/mib, best.median(allocation)/mib, ours.median(memory)/mib, quiet.Load()))
}

func (s *summary) print() {
	fmt.Print("\n### Summary\n\n")
	fmt.Println("| file system | row | | imgcp s | best peer s | imgcp ÷ best peer | allocated MiB, imgcp / peer | peak RSS MiB | load |")
	fmt.Println("| --- | --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
	for _, l := range s.lines {
		fmt.Println(l)
	}
}
