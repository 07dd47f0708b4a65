// SPDX-License-Identifier: Apache-2.0

// Package graph shows backing chains and who uses them: as a tree, as DOT, and as SVG.
package graph

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"imgward/guard/chain"
)

// Image is one image in use, or a file below it.
type Image struct {
	Path  string   // absolute
	Users []string // who uses it, in words; empty for what is only below another image
	Below []*Image // what it consists of besides itself: backing file, data files
	// Above says that another image in use stands on it, so that it is no root of the tree.
	Above bool
}

// errForeign keeps a header from leading anywhere: a guest writes into a raw image what it likes.
var errForeign = errors.New("no evidence names this file")

// Link finds out which image stands on which, from their headers. Only files of the list itself are opened, whatever a
// header names.
func Link(ctx context.Context, images []*Image) {
	known := make(map[string]*Image, len(images))
	for _, img := range images {
		known[img.Path] = img
	}
	open := func(path string) (*os.File, error) {
		if known[filepath.Clean(path)] == nil {
			return nil, errForeign
		}
		return os.Open(path)
	}
	for _, img := range images {
		links, _ := chain.Read(ctx, open, img.Path, "") // what could be read is shown
		for _, l := range links {
			if below := known[filepath.Clean(l.Path)]; l.Depth == 1 && below != nil && below != img && !slices.Contains(img.Below, below) {
				img.Below = append(img.Below, below)
				below.Above = true
			}
		}
	}
}

// Roots are the images that nothing stands on: where VMs write. In a loop of headers there is none, so it gives the first.
func Roots(images []*Image) []*Image {
	var roots []*Image
	reached := map[*Image]bool{}
	var reach func(*Image)
	reach = func(img *Image) {
		if reached[img] {
			return
		}
		reached[img] = true
		for _, b := range img.Below {
			reach(b)
		}
	}
	for _, first := range []bool{true, false} {
		for _, img := range images {
			if !reached[img] && (!first || !img.Above) {
				roots = append(roots, img)
				reach(img)
			}
		}
	}
	return roots
}
