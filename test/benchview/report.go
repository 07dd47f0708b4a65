package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"imgward/test/conformance/target"
)

// results are all samples, by workload and place.
type results struct {
	workloads []workload
	samples   map[string]map[string][]sample
	rss       map[string]int64 // bytes, at the end
}

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
}

// printRatios compares both modes with native and with the best of the others.
func (r *results) printRatios(out io.Writer, places []*place) {
	fmt.Fprintf(out, "| workload | native | view / native | view / best peer | no passthrough / native | no passthrough / best peer without it | best peer |\n")
	fmt.Fprintf(out, "| --- | ---: | ---: | ---: | ---: | ---: | --- |\n")
	for _, w := range r.workloads {
		nat := r.median(w, native)
		best, value := r.best(w, places, nil)
		_, daemon := r.best(w, places, []string{target.Loopback.Name})
		view, slow := r.median(w, target.View.Name), r.median(w, target.ViewNoPassthrough.Name)
		fmt.Fprintf(out, "| %s | %s %s | %s | %s | %s | %s | %s |\n", w.name, number(nat), w.unit, ratio(view, nat),
			ratio(view, value), ratio(slow, nat), ratio(slow, daemon), best)
	}
	fmt.Fprintln(out)
}

// best finds the fastest that is neither native nor ours, nor left out.
func (r *results) best(w workload, places []*place, without []string) (name string, value float64) {
	for _, p := range places {
		if p.ours() || slices.Contains(without, p.name) {
			continue
		}
		if v := r.median(w, p.name); v > value {
			name, value = p.name, v
		}
	}
	return name, value
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
			row = append(row, number(r.median(w, p.name)))
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintln(out)
}

// printCost gives the daemons' CPU time for each GiB that went through, and their memory.
func (r *results) printCost(out io.Writer, places []*place) {
	names := []string{"daemon"}
	var data []workload
	for _, w := range r.workloads {
		if slices.ContainsFunc(r.samples[w.name][native], func(s sample) bool { return s.bytes > 0 }) {
			data = append(data, w)
			names = append(names, w.name+", CPU ms/GiB")
		}
	}
	header(out, append(names, "RSS MiB"), 1)
	for _, p := range places {
		if p.mount == nil {
			continue
		}
		row := []string{p.name}
		for _, w := range data {
			row = append(row, r.cost(w, p.name))
		}
		row = append(row, fmt.Sprintf("%.1f", float64(r.rss[p.name])/(1<<20)))
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
	}
}

func (r *results) cost(w workload, place string) string {
	var cpu time.Duration
	var bytes int64
	for _, s := range r.samples[w.name][place] {
		cpu, bytes = cpu+s.cpu, bytes+s.bytes
	}
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(cpu.Milliseconds())*(1<<30)/float64(bytes))
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

func ratio(v, base float64) string {
	if v == 0 || base == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v/base)
}
