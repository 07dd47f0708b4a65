// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"path/filepath"
	"slices"
)

// walk is one search. A layer that is reached twice with other ranges is found twice, for what is above may differ.
type walk struct {
	Stack
	found    []Layer // the first is where it began
	downOnly bool
}

// maxFound ends a search through a sysfs that goes round in circles, or a disk with a great many partitions.
const maxFound = 1024

// add takes note of a layer; false if it is known.
func (w *walk) add(l Layer) bool {
	known := func(o Layer) bool { return l.ID == o.ID && l.Path == o.Path && l.Part == o.Part }
	if len(w.found) == maxFound || l.ID == w.found[0].ID || slices.ContainsFunc(w.found, known) {
		return false
	}
	w.found = append(w.found, l)
	return true
}

// down goes from a layer to those that its bytes are kept in, and from each of them up again: others may show the same
// bytes.
func (w *walk) down(from Layer) {
	for _, l := range w.lower(from) {
		if !w.add(l) {
			continue
		}
		w.down(l)
		if l.Exact && !w.downOnly {
			w.up(l)
		}
	}
}

func (w *walk) lower(from Layer) []Layer {
	dir := w.dir(from.ID)
	if dir == "" {
		return nil
	}
	if has(dir, "partition") {
		part := Range{from.Part.Off + sectors(dir, "start"), from.Part.Len}
		return []Layer{device(filepath.Dir(dir), part, from.Exact)}
	}
	if path := line(dir, "loop/backing_file"); path != "" {
		part := Range{from.Part.Off + number(dir, "loop/offset"), from.Part.Len}
		id, _ := w.Lookup(path)
		return []Layer{{ID: id, Path: path, Part: part, Exact: from.Exact}}
	}
	var slaves []Layer
	for _, name := range names(filepath.Join(dir, "slaves")) {
		slave, err := filepath.EvalSymlinks(filepath.Join(dir, "slaves", name))
		if err == nil {
			slaves = append(slaves, device(slave, Range{0, sectors(slave, "size")}, false))
		}
	}
	return slaves
}

// up goes from a layer to everything that shows the common bytes under another name.
func (w *walk) up(from Layer) {
	for _, l := range w.upper(from) {
		if w.add(l) {
			w.up(l)
		}
	}
}

func (w *walk) upper(from Layer) []Layer {
	var found []Layer
	if dir := w.dir(from.ID); dir != "" {
		for _, p := range partitions(dir) {
			start := sectors(p, "start")
			if common, ok := from.Part.cut(Range{start, sectors(p, "size")}); ok {
				found = append(found, device(p, Range{common.Off - start, common.Len}, from.Exact))
			}
		}
		for _, name := range names(filepath.Join(dir, "holders")) {
			holder, err := filepath.EvalSymlinks(filepath.Join(dir, "holders", name))
			if err == nil {
				found = append(found, device(holder, Range{0, sectors(holder, "size")}, false))
			}
		}
	}
	for _, l := range w.attached() {
		if l.file != from.ID {
			continue
		}
		part := l.part()
		if common, ok := from.Part.cut(part); ok {
			found = append(found, device(l.dir, Range{common.Off - part.Off, common.Len}, from.Exact))
		}
	}
	return found
}

// partitions are the directories of a disk's partitions.
func partitions(disk string) []string {
	found, _ := filepath.Glob(filepath.Join(disk, "*", "partition"))
	for i, p := range found {
		found[i] = filepath.Dir(p)
	}
	return found
}
