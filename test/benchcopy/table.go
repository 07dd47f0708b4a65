package main

import (
	"fmt"
	"math"
	"slices"
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

func mode(durable bool) string {
	if durable {
		return "durable"
	}
	return "page cache"
}

// printTable prints one row of the issue as a table, the fastest tool first.
func printTable(fs, row string, durable bool, results []result) {
	fmt.Printf("\n### %s, %s, %s\n\n", fs, row, mode(durable))
	fmt.Println("| tool | median s (range) | imgcp is faster by | CPU s | allocated MiB | peak RSS MiB |")
	fmt.Println("| --- | ---: | ---: | ---: | ---: | ---: |")
	ours := math.Inf(1)
	for _, r := range results {
		if r.tool.ours {
			ours = min(ours, r.median(seconds))
		}
	}
	slices.SortStableFunc(results, func(a, b result) int {
		if a.median(seconds) < b.median(seconds) {
			return -1
		}
		return 1
	})
	for _, r := range results {
		fmt.Printf("| %s | %s | %.2f | %.3f | %.1f | %.0f |\n", r.tool.name, r.spread(), r.median(seconds)/ours,
			r.median(func(s sample) float64 { return s.cpu }),
			r.median(func(s sample) float64 { return allocation(s) / mib }),
			r.median(func(s sample) float64 { return memory(s) / mib }))
	}
}
