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

func seconds(s sample) float64 { return s.seconds }

// printTable prints one row of the issue as a table, the fastest tool first.
func printTable(fs, row string, durable bool, results []result) {
	mode := "page cache"
	if durable {
		mode = "durable"
	}
	fmt.Printf("\n### %s, %s, %s\n\n", fs, row, mode)
	fmt.Println("| tool | median s | imgcp is faster by | CPU s | allocated MiB | peak RSS MiB |")
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
		fmt.Printf("| %s | %.3f | %.2f | %.3f | %.1f | %.0f |\n", r.tool.name, r.median(seconds), r.median(seconds)/ours,
			r.median(func(s sample) float64 { return s.cpu }),
			r.median(func(s sample) float64 { return float64(s.blocks) / mib }),
			r.median(func(s sample) float64 { return float64(s.rss) / mib }))
	}
}
