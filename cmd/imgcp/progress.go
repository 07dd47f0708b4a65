// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/term"

	imgcopy "imgward/copy"
	"imgward/copy/move"
)

// lines is for logs: a line now and then.
type lines struct {
	w       io.Writer
	results bool // one for each finished image too
}

func (l *lines) tick(s snapshot) { fmt.Fprintln(l.w, "imgcp: "+s.line()) }

func (l *lines) step(_ *job, s move.Step) { fmt.Fprintln(l.w, s) }

func (l *lines) finish(j *job, r imgcopy.Result, err error) {
	if l.results && err == nil {
		fmt.Fprintln(l.w, "imgcp: "+resultLine(j, r))
	}
}

func (l *lines) end() {}

// silent shows what was asked for, and no progress.
type silent struct{ lines }

func (*silent) tick(snapshot) {}

// resultLine is a finished copy in one line.
func resultLine(j *job, r imgcopy.Result) string {
	parts := []string{}
	for _, p := range []struct {
		n    int64
		what string
	}{
		{r.Resumed, "copied before"}, {r.Cloned, "shared"}, {r.Written, "written"},
		{r.Zeroes + r.Holes, "zeroes left out"}, {r.Missing, "MISSING"},
	} {
		if p.n > 0 {
			parts = append(parts, move.Bytes(p.n)+" "+p.what)
		}
	}
	if r.Method == move.MethodKernel && len(parts) > 0 {
		parts[0] = strings.Replace(parts[0], "shared", "copied or shared by the server", 1)
	}
	if r.Repaired > 0 {
		parts = append(parts, move.Count(r.Repaired, "block")+" written twice")
	}
	return fmt.Sprintf("%s → %s: %s in %s (%s)", printable(j.from), printable(j.to), move.Bytes(r.Size),
		r.Elapsed.Round(10*time.Millisecond), strings.Join(parts, ", "))
}

// bar is one line on a terminal, drawn over again and again.
type bar struct {
	w     io.Writer
	width func() int
	drawn bool
}

func newBar(w interface {
	io.Writer
	Fd() uintptr
}) *bar {
	return &bar{w: w, width: func() int {
		n, _, err := term.GetSize(int(w.Fd()))
		if err != nil || n < 20 {
			return 80
		}
		return n
	}}
}

func (b *bar) tick(s snapshot) {
	b.drawn = true
	fmt.Fprint(b.w, "\r\x1b[K"+fit(barOf(s)+s.line(), b.width()-1))
}

// barOf is ten characters of progress, where it is known.
func barOf(s snapshot) string {
	if s.data == 0 || s.phase != move.PhaseCopy {
		return ""
	}
	n := int(10 * s.moved / s.data)
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", 10-n) + "] "
}

// fit cuts a line to the terminal: one that wraps cannot be drawn over.
func fit(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

func (b *bar) step(_ *job, s move.Step) {
	b.end()
	fmt.Fprintln(b.w, s)
}

func (b *bar) finish(j *job, r imgcopy.Result, err error) {
	b.end()
	if err == nil {
		fmt.Fprintln(b.w, resultLine(j, r))
	}
}

func (b *bar) end() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
	b.drawn = false
}
