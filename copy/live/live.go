// SPDX-License-Identifier: Apache-2.0

// Package live reads a running machine's disk as it was at one point in time.
//
// There are three ways. Torn takes the disk as it comes, under writes. Suspend stops the machine for the moment that a
// reflink takes. Backup has libvirt's backup job write the copy. What the last two do to a machine is done and undone by
// a process of its own, the guardian, so that a killed imgcp leaves no machine suspended or frozen.
package live

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"imgward/copy/source"
	"imgward/guard"
)

// Torn reads a disk while it is written to. What comes out may have parts from different times.
type Torn struct{ Log *slog.Logger }

// Snapshot implements source.Live.
func (t Torn) Snapshot(_ context.Context, i source.LiveImage) (*source.Snapshot, error) {
	t.Log.Warn("THIS COPY IS TORN: the image is being written to, and the copy will be of no single moment. "+
		"A file system or database in it may be beyond repair", "image", i.Path)
	return &source.Snapshot{File: i.File, Close: func() error { return nil }}, nil
}

// domains are the machines that write to the image, by UUID where it is known.
func domains(i source.LiveImage) ([]string, error) {
	var names []string
	for _, u := range i.Uses {
		if name := domain(u); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("a program that is no libvirt domain writes to it; imgcp cannot suspend that")
	}
	return names, nil
}

func domain(u guard.Use) string {
	if u.UUID != "" {
		return u.UUID
	}
	return u.Domain
}
