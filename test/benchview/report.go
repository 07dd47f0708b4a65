// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"imgward/test/conformance/target"
	"imgward/test/quiet"
)

// results are all samples, by workload and place.
type results struct {
	workloads []workload
	samples   map[string]map[string][]sample
	memory    map[string]memory // at the end
	crowd     int               // files
	crowded   map[string]memory // after a list of so many files
	// loadBefore tells how quiet the machine was.
	loadBefore string
	load       map[string]string // by workload, at its end
}

// memory of a daemon, in bytes.
type memory struct{ rss, pss int64 }

func memoryOf(m *target.Mount) memory { return memory{m.Cost().RSS, m.PSS()} }

// median of a workload's values at a place.
func (r *results) median(w workload, place string) float64 {
	var values []float64
	for _, s := range r.samples[w.name][place] {
		values = append(values, s.value)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

// print writes three tables: imgward in brief, everybody's values, and what the daemons cost.
func (r *results) print(out io.Writer, places []*place) {
	r.printRatios(out, places)
	r.printAll(out, places)
	r.printCost(out, places)
	fmt.Fprintf(out, "\nLoad average (1 minute) at the start %s, at the end %s, on %d CPUs.\n", r.loadBefore, quiet.Load(), runtime.NumCPU())
}

// printRatios compares both modes with native and with the best of the others: where data moves, the mode without
// passthrough with those that have none.
func (r *results) printRatios(out io.Writer, places []*place) {
	fmt.Fprintln(out, "Medians over the rounds; (least–most) of the ratio within one round.")
	fmt.Fprintln(out)
	header(out, []string{
		"workload", "native", "view / native", "view / best peer", "best peer",
		"no passthrough / native", "no passthrough / best peer", "best peer", "load",
	}, 1)
	for _, w := range r.workloads {
		best, plain := r.best(w, places, true), r.best(w, places, !w.moves)
		fmt.Fprintf(out, "| %s | %s %s | %s | %s | %s | %s | %s | %s | %s |\n", w.name, number(r.median(w, native)), w.unit,
			r.ratio(w, target.View.Name, native), r.ratio(w, target.View.Name, best), best,
			r.ratio(w, target.ViewNoPassthrough.Name, native), r.ratio(w, target.ViewNoPassthrough.Name, plain), plain, r.load[w.name])
	}
	fmt.Fprintln(out)
}

// ratio compares two places round by round: what disturbs a round disturbs both.
func (r *results) ratio(w workload, place, base string) string {
	bases := map[int]float64{}
	for _, s := range r.samples[w.name][base] {
		bases[s.round] = s.value
	}
	var ratios []float64
	for _, s := range r.samples[w.name][place] {
		if b := bases[s.round]; b > 0 {
			ratios = append(ratios, s.value/b)
		}
	}
	return quiet.Ratio(ratios)
}

// best names the fastest that is not ours and does what the workload asks for, of those with passthrough too or not.
func (r *results) best(w workload, places []*place, passthrough bool) string {
	name, value := "-", 0.0
	for _, p := range places {
		if p.ours() || p.omits(w) || p.mount.Peer.Passthrough && !passthrough {
			continue
		}
		if v := r.median(w, p.name); v > value {
			name, value = p.name, v
		}
	}
	return name
}

func (r *results) printAll(out io.Writer, places []*place) {
	names := []string{"workload", "unit"}
	for _, p := range places {
		names = append(names, p.name)
	}
	header(out, names, 2)
	for _, w := range r.workloads {
		row := []string{w.name, w.unit}
		for _, p := range places {
			text := number(r.median(w, p.name))
			if p.omits(w) {
				text += " †"
			}
			row = append(row, text)
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintln(out)
	for _, p := range places {
		if p.mount == nil {
			continue
		}
		for what, how := range p.mount.Peer.Omits {
			fmt.Fprintf(out, "† %s is no peer at what asks for %s: %s.\n", p.name, what, how)
		}
	}
	fmt.Fprintln(out)
}

// printCost gives the daemons' CPU time for each GiB that went through, or for each operation, and their memory.
func (r *results) printCost(out io.Writer, places []*place) {
	names := []string{"daemon"}
	var daemons []*place
	for _, p := range places {
		if p.mount != nil {
			daemons = append(daemons, p)
			names = append(names, p.name)
		}
	}
	header(out, names, 1)
	row := func(name string, value func(p *place) string) {
		fmt.Fprintf(out, "| %s |", name)
		for _, p := range daemons {
			fmt.Fprintf(out, " %s |", value(p))
		}
		fmt.Fprintln(out)
	}
	for _, w := range r.workloads {
		unit := "CPU µs each"
		if w.moves {
			unit = "CPU ms/GiB"
		}
		row(w.name+", "+unit, func(p *place) string { return r.cost(w, p.name) })
	}
	row("RSS (PSS) MiB", func(p *place) string { return r.memory[p.name].String() })
	if r.crowd > 0 {
		row(fmt.Sprintf("RSS (PSS) MiB, after a list of %d files", r.crowd), func(p *place) string { return r.crowded[p.name].String() })
	}
}

func (m memory) String() string {
	if m.rss == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f (%.1f)", float64(m.rss)/(1<<20), float64(m.pss)/(1<<20))
}

// cost is the daemon's CPU time in milliseconds for each GiB, or in microseconds for each operation.
func (r *results) cost(w workload, place string) string {
	var cpu time.Duration
	var n float64
	for _, s := range r.samples[w.name][place] {
		cpu += s.cpu
		n += float64(s.bytes)/(1<<30)*1000 + float64(s.ops)
	}
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(cpu.Microseconds())/n)
}

func header(out io.Writer, names []string, left int) {
	fmt.Fprintf(out, "| %s |\n|", strings.Join(names, " | "))
	for i := range names {
		if i < left {
			fmt.Fprint(out, " --- |")
		} else {
			fmt.Fprint(out, " ---: |")
		}
	}
	fmt.Fprintln(out)
}

func number(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", v)
}
