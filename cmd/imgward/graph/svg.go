// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The drawing, in pixels: a column for each link of a chain, a row for each chain.
const (
	letter    = 7.2 // width of a letter of the 12 px monospace font
	rowHeight = 18
	gapX      = 48
	gapY      = 18
	padding   = 8
)

// box is an image in the drawing.
type box struct {
	img           *Image
	row, column   int
	x, y, w, h    float64
	right, bottom float64 // of its cell
}

// SVG writes a drawing that needs nothing else: no script, no font, no link.
func SVG(w io.Writer, images []*Image) error {
	boxes, width, height := layout(images)
	at := make(map[*Image]*box, len(boxes))
	for _, b := range boxes {
		at[b.img] = b
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="monospace" font-size="12">`+"\n", width, height)
	s.WriteString(`<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"><path d="M0,0L8,4L0,8z"/></marker></defs>` + "\n")
	for _, b := range boxes {
		for _, below := range b.img.Below {
			to := at[below]
			fmt.Fprintf(&s, `<path d="%s" stroke="black" fill="none" marker-end="url(#a)"/>`+"\n", edge(b, to))
		}
	}
	for _, b := range boxes {
		b.draw(&s)
	}
	s.WriteString("</svg>\n")
	_, err := io.WriteString(w, s.String())
	return err
}

func (b *box) draw(s *strings.Builder) {
	fill := "#eeeeee"
	if len(b.img.Users) > 0 {
		fill = "#d8ecff"
	}
	fmt.Fprintf(s, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="4" fill="%s" stroke="black"/>`+"\n", b.x, b.y, b.w, b.h, fill)
	for i, line := range b.img.lines() {
		weight := ""
		if i == 0 {
			weight = ` font-weight="bold"`
		}
		fmt.Fprintf(s, `<text x="%.0f" y="%.0f"%s>%s</text>`+"\n", b.x+padding, b.y+padding+float64(i)*rowHeight+11, weight, html.EscapeString(line))
	}
}

// lines are the text of a box. What XML cannot hold becomes a replacement character.
func (img *Image) lines() []string {
	lines := append([]string{img.Path}, img.Users...)
	for i, l := range lines {
		lines[i] = strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return utf8.RuneError
		}, l)
	}
	return lines
}

// layout gives each image a cell of a grid: its column is the length of the longest chain above it, its row that of the
// image above it where that is free, so that a chain is a line. Between rows and between columns there is room for edges.
func layout(images []*Image) (boxes []*box, width, height float64) {
	column := columns(images)
	type cell struct{ row, column int }
	taken, rows := map[cell]bool{}, 0
	placed := map[*Image]*box{}
	var place func(img *Image, row int)
	place = func(img *Image, row int) {
		if placed[img] != nil {
			return
		}
		if at := (cell{row, column[img]}); row == rows || taken[at] {
			row = rows
			rows++
		}
		taken[cell{row, column[img]}] = true
		b := newBox(img, row, column[img])
		placed[img] = b
		boxes = append(boxes, b)
		for _, below := range img.Below {
			place(below, row)
		}
	}
	for _, r := range Roots(images) {
		place(r, rows)
	}
	return boxes, spread(boxes, func(b *box) (int, float64, *float64, *float64) { return b.column, b.w, &b.x, &b.right }, gapX),
		spread(boxes, func(b *box) (int, float64, *float64, *float64) { return b.row, b.h, &b.y, &b.bottom }, gapY)
}

// columns says how long the longest chain above each image is.
func columns(images []*Image) map[*Image]int {
	column := map[*Image]int{}
	var place func(img *Image, depth int)
	place = func(img *Image, depth int) {
		if at, ok := column[img]; ok && at >= depth || depth >= len(images) { // the latter in a loop only
			return
		}
		column[img] = depth
		for _, b := range img.Below {
			place(b, depth+1)
		}
	}
	for _, r := range Roots(images) {
		place(r, 0)
	}
	return column
}

func newBox(img *Image, row, column int) *box {
	b := &box{img: img, row: row, column: column, h: padding}
	for _, l := range img.lines() {
		b.w = max(b.w, letter*float64(utf8.RuneCountInString(l))+2*padding)
		b.h += rowHeight
	}
	return b
}

// spread sets where each row, or column, of a grid begins, and returns where the last one ends. of tells of a box in which
// it is, how large it is, and where its place and the end of its cell are noted.
func spread(boxes []*box, of func(*box) (index int, size float64, place, end *float64), gap float64) float64 {
	var sizes []float64
	for _, b := range boxes {
		i, size, _, _ := of(b)
		for len(sizes) <= i {
			sizes = append(sizes, 0)
		}
		sizes[i] = max(sizes[i], size)
	}
	starts := []float64{gap}
	for _, size := range sizes {
		starts = append(starts, starts[len(starts)-1]+size+gap)
	}
	for _, b := range boxes {
		i, _, place, end := of(b)
		*place, *end = starts[i], starts[i]+sizes[i]
	}
	return starts[len(sizes)]
}

// Edges to different images do not share the room before a column, where they are few.
const (
	lane  = 4
	lanes = 6
)

// edge is the way of an arrow, behind no box: out of the box to the right, up or down in the room before the next column,
// and straight in; past further columns in the room below its row.
func edge(from, to *box) string {
	y, end := from.y+from.h/2, to.y+min(to.h/2, rowHeight)
	if to.row == from.row {
		y = from.y + min(from.h/2, rowHeight)
	}
	next, before := from.right+gapX/4, to.x-10-lane*float64(to.row%lanes)
	way := fmt.Sprintf("M%.0f,%.0fH%.0f", from.x+from.w, y, next)
	if to.column != from.column+1 {
		way += fmt.Sprintf("V%.0f", from.bottom+gapY/2)
	}
	return way + fmt.Sprintf("H%.0fV%.0fH%.0f", before, end, to.x)
}
