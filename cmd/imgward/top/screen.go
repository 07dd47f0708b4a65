// SPDX-License-Identifier: Apache-2.0

// Package top draws a view as it is now, for a terminal of any size from 80 by 24 on, without colour.
package top

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"imgward/cmd/imgward/control"
)

// State is what is drawn.
type State struct {
	Now      time.Time
	View     control.View
	Images   []Row
	Refusals []string // in words, oldest first
	Fault    string   // why the daemon did not answer the last time
	Paused   bool
	Only     bool // refusals only
	Scroll   int  // images to leave out at the top
}

// Row is one image.
type Row struct {
	Domain, Target, Path string
	VMM                  int
	Evidence             string
	Writable             bool
	Below                int // how many files of its chain are in use as well
	// Read and Write are what the VMM moved on all its disks, in bytes a second; negative: not known.
	Read, Write float64
}

// refusalRows is how many lines refusals get below the images, however many these are.
const refusalRows = 7

// Draw gives the lines of a screen, none longer than width, no more than height.
func (s *State) Draw(width, height int) []string {
	lines := s.head()
	room := max(0, height-len(lines)-2)
	events := min(len(s.Refusals), max(refusalRows, room-len(s.Images)-1)) // neither leaves empty what the other needs
	if s.Only {
		events = room
	} else {
		lines = append(lines, s.images(height-len(lines)-events-2, width)...)
	}
	lines = append(lines, "--- refused "+strings.Repeat("-", max(0, width-12)))
	lines = append(lines, s.Refusals[max(0, len(s.Refusals)-events):]...)
	for len(lines) < height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, min(len(lines), height-1))], "q quit  p pause  r refusals only  j/k scroll  space now   (+: backing files)")
	for i := range lines {
		lines[i] = cut(lines[i], width)
	}
	return lines
}

func (s *State) head() []string {
	v := &s.View
	mode := "passthrough"
	if !v.Passthrough {
		mode = "through the daemon"
	}
	state := ""
	if s.Paused {
		state = "  PAUSED"
	}
	lines := []string{
		fmt.Sprintf("imgward %s  %s  %s%s", s.Now.Format(time.TimeOnly), v.Mountpoint, mode, state),
		fmt.Sprintf("%d in use, %d open, %d refused, %d take-overs, policy: %s", len(s.Images), v.Handles, v.Refusals, v.Takeovers, v.Policy),
	}
	if s.Fault != "" {
		lines = append(lines, "! "+s.Fault)
	}
	for i, w := range v.Warnings {
		if i == 2 {
			lines = append(lines, fmt.Sprintf("! and %d more warnings (imgward status)", len(v.Warnings)-i))
			break
		}
		lines = append(lines, "! "+w)
	}
	return lines
}

func (s *State) images(room, width int) []string {
	lines := []string{fmt.Sprintf("%-16s %-6s %-7s %-2s %-8s %7s %7s %2s %s", "DOMAIN", "TARGET", "VMM", "RW", "EVIDENCE", "READ/s", "WRITE/s", "+", "IMAGE")}
	room = max(0, room-1) // a terminal lower than 24 lines loses images first
	first := max(0, min(s.Scroll, len(s.Images)-room))
	moved := map[int]bool{} // VMMs whose rates stand in a line above
	for i, r := range s.Images[first:] {
		if i >= room {
			break
		}
		read, write := rate(r.Read), rate(r.Write)
		if r.VMM != 0 && moved[r.VMM] {
			read, write = "", ""
		}
		moved[r.VMM] = true
		rw := "r"
		if r.Writable {
			rw = "w"
		}
		line := fmt.Sprintf("%-16s %-6s %-7d %-2s %-8s %7s %7s %2d ",
			cut(r.Domain, 16), cut(r.Target, 6), r.VMM, rw, cut(r.Evidence, 8), read, write, r.Below)
		lines = append(lines, line+cutMiddle(r.Path, width-utf8.RuneCountInString(line)))
	}
	return lines
}

// rate is a number of bytes in at most six letters: "1.2M".
func rate(n float64) string {
	switch {
	case n < 0:
		return "-"
	case n < 1000:
		return fmt.Sprintf("%.0f", n)
	}
	unit := -1
	for n >= 999.5 && unit < 4 {
		n /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f%c", n, "KMGTP"[unit])
}

// cut shortens a line to width letters; the last then is a +.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "+"
}

// cutMiddle shortens a name to width letters and keeps both ends: disks of one VM differ in the last.
func cutMiddle(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 8 {
		return cut(s, width)
	}
	end := width / 2
	return string(r[:width-end-2]) + ".." + string(r[len(r)-end:])
}
