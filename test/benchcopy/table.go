// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"

	"imgward/test/quiet"
)

// median is over one figure of all runs.
func (r result) median(figure func(sample) float64) float64 {
	var v []float64
	for _, s := range r.samples {
		v = append(v, figure(s))
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func seconds(s sample) float64    { return s.seconds }
func allocation(s sample) float64 { return float64(s.blocks) }
func memory(s sample) float64     { return float64(s.rss) }

// spread is the median, and the fastest and the slowest run.
func (r result) spread() string {
	lo, hi := math.Inf(1), 0.0
	for _, s := range r.samples {
		lo, hi = min(lo, s.seconds), max(hi, s.seconds)
	}
	return fmt.Sprintf("%.3f (%.3f–%.3f)", r.median(seconds), lo, hi)
}

// ratio compares two tools round by round: what disturbs a round disturbs both.
func ratio(a, b result) string {
	var rounds []float64
	for i := range min(len(a.samples), len(b.samples)) {
		rounds = append(rounds, a.samples[i].seconds/b.samples[i].seconds)
	}
	return quiet.Ratio(rounds)
}

func mode(durable bool) string {
	if durable {
		return "durable"
	}
	return "page cache"
}

// printTable prints one row of the issue as a table, the fastest tool first.
func printTable(fs, row string, durable bool, results []result) {
	fmt.Printf("\n### %s, %s, %s, load %s\n\n", fs, row, mode(durable), quiet.Load())
	fmt.Println("| tool | median s (range) | imgcp ÷ it | CPU s | allocated MiB | peak RSS MiB |")
	fmt.Println("| --- | ---: | ---: | ---: | ---: | ---: |")
	var ours *result // the fastest of ours, where there are several
	for _, r := range results {
		if r.tool.ours && (ours == nil || r.median(seconds) < ours.median(seconds)) {
			ours = &r
		}
	}
	slices.SortStableFunc(results, func(a, b result) int {
		if a.median(seconds) < b.median(seconds) {
			return -1
		}
		return 1
	})
	for _, r := range results {
		against := "-"
		if ours != nil {
			against = ratio(*ours, r)
		}
		fmt.Printf("| %s | %s | %s | %.3f | %.1f | %.0f |\n", r.tool.name, r.spread(), against,
			r.median(func(s sample) float64 { return s.cpu }),
			r.median(func(s sample) float64 { return allocation(s) / mib }),
			r.median(func(s sample) float64 { return memory(s) / mib }))
	}
}
