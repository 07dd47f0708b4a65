package graph

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The drawing, in pixels: a column for each link of a chain, a row for each line of text.
const (
	letter    = 7.2 // width of a letter of the 12 px monospace font
	rowHeight = 18
	gapX      = 48
	gapY      = 14
	padding   = 8
)

// box is an image in the drawing.
type box struct {
	img        *Image
	x, y, w, h float64
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
			fmt.Fprintf(&s, `<path d="M%.0f,%.0fL%.0f,%.0f" stroke="black" fill="none" marker-end="url(#a)"/>`+"\n", b.x+b.w, b.y+b.h/2, to.x, to.y+to.h/2)
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

// layout gives each image a place: its column is the length of the longest chain above it.
func layout(images []*Image) (boxes []*box, width, height float64) {
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
	var columns [][]*box
	for _, img := range images {
		b := &box{img: img}
		for _, l := range img.lines() {
			b.w = max(b.w, letter*float64(utf8.RuneCountInString(l))+2*padding)
			b.h += rowHeight
		}
		b.h += padding
		for len(columns) <= column[img] {
			columns = append(columns, nil)
		}
		columns[column[img]] = append(columns[column[img]], b)
		boxes = append(boxes, b)
	}
	x := float64(gapY)
	for _, col := range columns {
		y, widest := float64(gapY), 0.0
		for _, b := range col {
			b.x, b.y = x, y
			y += b.h + gapY
			widest = max(widest, b.w)
		}
		x += widest + gapX
		height = max(height, y)
	}
	return boxes, x, max(height, gapY)
}
