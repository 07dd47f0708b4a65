package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
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
	// loadBefore tells how quiet the machine was.
	loadBefore string
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
	fmt.Fprintf(out, "\nLoad average (1 minute) at the start %s, at the end %s, on %d CPUs.\n", r.loadBefore, load(), runtime.NumCPU())
}

// printRatios compares both modes with native and with the best of the others.
func (r *results) printRatios(out io.Writer, places []*place) {
	fmt.Fprintln(out, "Medians over the rounds; (least–most) of the ratio within one round.")
	fmt.Fprintln(out)
	header(out, []string{"workload", "native", "view / native", "view / best peer", "no passthrough / native", "best peer"}, 1)
	for _, w := range r.workloads {
		best := r.best(w, places)
		fmt.Fprintf(out, "| %s | %s %s | %s | %s | %s | %s |\n", w.name, number(r.median(w, native)), w.unit,
			r.ratio(w, target.View.Name, native), r.ratio(w, target.View.Name, best),
			r.ratio(w, target.ViewNoPassthrough.Name, native), best)
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
	if len(ratios) == 0 {
		return "-"
	}
	slices.Sort(ratios)
	return fmt.Sprintf("%.2f (%.2f–%.2f)", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}

// best names the fastest that is not ours and does what the workload asks for.
func (r *results) best(w workload, places []*place) string {
	name, value := "-", 0.0
	for _, p := range places {
		if p.ours() || p.omits(w) {
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
			fmt.Fprintf(out, "† %s does no %s: %s.\n", p.name, what, how)
		}
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

// load is the load average of the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
