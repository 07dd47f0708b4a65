// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"io"
	"strings"
)

// Tree writes the images as a tree, the one that a VM writes to above those below. An image that several stand on is described
// below the first. shown makes names fit for a terminal.
func Tree(w io.Writer, images []*Image, shown func(string) string) error {
	var err error
	seen := map[*Image]bool{}
	var put func(img *Image, first, rest string)
	put = func(img *Image, first, rest string) {
		line, again := first+shown(img.Path), seen[img]
		switch {
		case again && len(img.Users)+len(img.Below) > 0:
			line += "  (see above)"
		case len(img.Users) > 0:
			line += "  <- " + shown(strings.Join(img.Users, "; "))
		}
		if _, e := fmt.Fprintln(w, line); e != nil {
			err = e
		}
		if again {
			return // of several that stand on it, or a loop
		}
		seen[img] = true
		for i, b := range img.Below {
			if i == len(img.Below)-1 {
				put(b, rest+"`- ", rest+"   ")
			} else {
				put(b, rest+"|- ", rest+"|  ")
			}
		}
	}
	for _, img := range Roots(images) {
		put(img, "", "")
	}
	return err
}

// DOT writes the images for dot(1).
func DOT(w io.Writer, images []*Image) error {
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "?")) + `"`
	}
	var b strings.Builder
	b.WriteString("digraph imgward {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n")
	number := numbers(images)
	for i, img := range images {
		fmt.Fprintf(&b, "  i%d [label=%s];\n", i, quote(img.Path))
		for j, user := range img.Users {
			fmt.Fprintf(&b, "  u%d_%d [label=%s, shape=ellipse];\n  u%d_%d -> i%d;\n", i, j, quote(user), i, j, i)
		}
		for _, below := range img.Below {
			fmt.Fprintf(&b, "  i%d -> i%d;\n", i, number[below])
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func numbers(images []*Image) map[*Image]int {
	n := make(map[*Image]int, len(images))
	for i, img := range images {
		n[img] = i
	}
	return n
}
