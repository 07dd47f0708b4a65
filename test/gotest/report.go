// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"imgward/test/need"
)

// event is what `go test -json` prints (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// test is the name of one in a package; its second part is empty for what the package itself says.
type test struct{ pkg, name string }

// report collects the events of one run.
type report struct {
	require bool
	failed  bool
	said    map[test]*strings.Builder
	parents map[test]bool // have subtests, whose time is counted there
	took    map[test]float64
	reasons []string // a line for each test that failed
}

func newReport(require bool) *report {
	return &report{require: require, said: map[test]*strings.Builder{}, parents: map[test]bool{}, took: map[test]float64{}}
}

// read takes events up to the end, and calls alive whenever a test has begun or ended.
func (r *report) read(from io.Reader, alive func()) error {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Print(line) // from go itself
			continue
		}
		if e.Action != "output" {
			alive()
		}
		r.take(e)
	}
}

func (r *report) take(e event) {
	who := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.say(who, e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "run":
		for at := strings.LastIndexByte(e.Test, '/'); at > 0; at = strings.LastIndexByte(e.Test[:at], '/') {
			r.parents[test{e.Package, e.Test[:at]}] = true
		}
	case "skip":
		if e.Test != "" && r.require && !allowed(r.text(who)) {
			fmt.Printf("--- FAIL: %s: skipped, and no missing feature of the kernel is named\n%s", e.Test, r.text(who))
			r.failed = true
		}
		if e.Test == "" {
			delete(r.said, who) // a package without tests
			return
		}
		r.end(who, e.Elapsed, false)
	case "pass":
		r.end(who, e.Elapsed, false)
	case "fail":
		r.end(who, e.Elapsed, true)
		r.failed = true
	}
}

// allowed reports whether a test may be skipped where nothing may be missing.
func allowed(said string) bool {
	return strings.Contains(said, ": "+need.KernelMark) || strings.Contains(said, ": "+need.LongMark) || strings.Contains(said, ": "+need.ExtraMark)
}

// end prints what a test that failed has said, and for a package the line by which go test ends it.
func (r *report) end(who test, seconds float64, failed bool) {
	text := r.text(who)
	delete(r.said, who)
	switch {
	case who.name == "" && failed:
		for cut, said := range r.said { // a test that did not come to its end
			if cut.pkg == who.pkg {
				fmt.Print(said)
			}
		}
		fmt.Print(text)
	case who.name == "":
		fmt.Print(lastLine(text))
	case failed:
		fmt.Print(text)
	}
	if who.name != "" {
		r.took[who] = seconds
	}
	if why := reason(text); failed && who.name != "" && why != "" {
		r.reasons = append(r.reasons, fmt.Sprintf("      %s: %s\n", who.name, why))
	}
}

var complaint = regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: .*|^panic: .*`)

// reason is the last line that a test itself said, for the whole may be far above in a long log.
func reason(text string) string {
	lines := complaint.FindAllString(text, -1)
	if lines == nil {
		return ""
	}
	line := strings.TrimSpace(lines[len(lines)-1])
	return line[:min(len(line), 200)]
}

// say keeps what a test says until it is known how it ends.
func (r *report) say(who test, text string) {
	if r.said[who] == nil {
		r.said[who] = &strings.Builder{}
	}
	r.said[who].WriteString(text)
}

func (r *report) text(who test) string {
	if b := r.said[who]; b != nil {
		return b.String()
	}
	return ""
}

func lastLine(text string) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	return strings.TrimSuffix(lines[len(lines)-1], "\n") + "\n"
}

// byTime are the tests without subtests, slowest first.
func (r *report) byTime() []test {
	var leaves []test
	for who := range r.took {
		if !r.parents[who] {
			leaves = append(leaves, who)
		}
	}
	slices.SortFunc(leaves, func(a, b test) int {
		return cmp.Or(cmp.Compare(r.took[b], r.took[a]), cmp.Compare(a.pkg+a.name, b.pkg+b.name))
	})
	return leaves
}

func (r *report) slowest(to *os.File, n int) {
	for _, who := range r.byTime()[:min(n, len(r.byTime()))] {
		if r.took[who] >= 5 {
			fmt.Fprintf(to, "slow  %6.1fs  %s\n", r.took[who], who.name)
		}
	}
}

// times is a table of all tests: suite, package, test, seconds.
func (r *report) times(label string) string {
	var table strings.Builder
	for _, who := range r.byTime() {
		fmt.Fprintf(&table, "%s\t%s\t%s\t%.2f\n", label, who.pkg, who.name, r.took[who])
	}
	return table.String()
}
