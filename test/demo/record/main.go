// SPDX-License-Identifier: Apache-2.0

// Command record draws what a program prints as an SVG of a terminal, on which the lines appear as they came. It reads
// the output of `script`, and writes the drawing to standard output:
//
//	script -qec bin/demo /dev/null | record >docs/pictures/demo.svg
package main

import (
	"bufio"
	"errors"
	"fmt"
	"html"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// In pixels and columns. Longer lines are folded.
const (
	columns = 100
	rows    = 26
	letter  = 7.9 // width of a letter of the 13 px font, rounded up
	row     = 18
	margin  = 14
)

// longest is the longest time that one line waits for the next: a guest that boots is no story.
const longest = 1200 * time.Millisecond

// pause is how long the end stands before it begins anew.
const pause = 6 * time.Second

// line is a line on the screen, and when it appears.
type line struct {
	text string
	kind string // "typed" (bold on the terminal), "said" (not indented: the story), "refused" or ""
	at   time.Duration
}

func main() {
	lines, err := read(bufio.NewScanner(os.Stdin))
	if err == nil {
		_, err = os.Stdout.WriteString(draw(lines))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

// read reads to the end; a demo that failed is an error.
func read(in *bufio.Scanner) ([]line, error) {
	var lines []line
	var at time.Duration
	last := time.Now()
	for in.Scan() {
		now := time.Now()
		at, last = at+min(now.Sub(last), longest), now
		text := strings.TrimRight(in.Text(), "\r\n")
		if strings.HasPrefix(text, "--- FAIL") || text == "FAIL" {
			return nil, fmt.Errorf("the demo failed: %s", text)
		}
		if text == "PASS" {
			break
		}
		if text == "" && len(lines) == 0 {
			continue
		}
		kind := ""
		if strings.Contains(text, "\x1b[1m") {
			kind = "typed"
			at += longest / 2 // somebody types it
		} else if text != "" && !strings.HasPrefix(text, " ") {
			kind = "said"
		} else if strings.Contains(text, "refused") {
			kind = "refused"
		}
		text = strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "", "\x1b[K", "").Replace(text)
		for _, part := range fold(text) {
			lines = append(lines, line{part, kind, at})
		}
	}
	if len(lines) == 0 && in.Err() == nil {
		return nil, errors.New("nothing to draw")
	}
	return lines, in.Err()
}

// fold breaks a line at the last space before the edge of the screen, for people to read.
func fold(text string) []string {
	var parts []string
	for utf8.RuneCountInString(text) > columns {
		edge := len(string([]rune(text)[:columns+1]))
		at := strings.LastIndexByte(text[:edge], ' ')
		if strings.TrimSpace(text[:max(at, 0)]) == "" { // one long word
			at = len(string([]rune(text)[:columns]))
		}
		parts, text = append(parts, text[:at]), "  "+strings.TrimPrefix(text[at:], " ")
	}
	return append(parts, text)
}

const style = `<style>
text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 13px; white-space: pre; fill: #d0d7de }
.typed { font-weight: bold; fill: #ffffff } .said { fill: #7ee787 } .refused { fill: #ff7b72 }
#screen { animation: scroll %.1fs step-end infinite }
@media (prefers-reduced-motion: reduce) { #screen { animation: none } }
@keyframes scroll {
%s}
</style>
`

// draw draws a terminal of some rows, on which the lines move up as they came. Where nothing moves, the first ones stand there.
func draw(lines []line) string {
	var s strings.Builder
	width, height := int(columns*letter)+2*margin, rows*row+2*margin
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">`+"\n", width, height)
	end := lines[len(lines)-1].at + pause
	fmt.Fprintf(&s, style, end.Seconds(), keyframes(lines, end))
	fmt.Fprintf(&s, `<rect width="%d" height="%d" rx="8" fill="#161b22" stroke="#57606a"/>`+"\n", width, height)
	fmt.Fprintf(&s, `<svg x="%d" y="%d" width="%d" height="%d"><g id="screen">`+"\n", margin, margin, width-2*margin, rows*row)
	for i, l := range lines {
		if strings.TrimSpace(l.text) == "" {
			continue
		}
		fmt.Fprintf(&s, `<text y="%d" xml:space="preserve" class="%s">%s</text>`+"\n", (i+1)*row-5, l.kind, html.EscapeString(l.text))
	}
	s.WriteString("</g></svg>\n</svg>\n")
	return s.String()
}

// keyframes moves the screen so that at each time the last line that has come by then is the lowest.
func keyframes(lines []line, end time.Duration) string {
	var s strings.Builder
	for i, l := range lines {
		if i+1 == len(lines) || lines[i+1].at != l.at {
			fmt.Fprintf(&s, "%.2f%% { transform: translateY(%dpx) }\n", 100*l.at.Seconds()/end.Seconds(), (rows-1-i)*row)
		}
	}
	return s.String()
}
