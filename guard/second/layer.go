// SPDX-License-Identifier: Apache-2.0

// Package second is the second layer: what keeps images in use from harm without a view of their directory, at no cost to
// reading and writing. Block devices have no view, and a shell that stood in a directory before the mount goes beside it.
//
// It has parts, each a package of its own behind Layer: claims (any kernel, block devices), lsm (BPF LSM, all files). Run
// tells them what is in use by the guard's evidence.
package second

import (
	"context"
	"log/slog"
	"time"

	"imgward/guard"
)

// Declaration is what the layers are to protect from now on: all of it, in the place of what was declared before.
type Declaration struct {
	// At is when its evidence began to be read. What was let go of since is not taken again.
	At time.Time
	// Uses are the images in use, files and block devices (ID.Dev == guard.BlockDevice), with who uses them as what. Nobody
	// changes it any more, so a layer may keep it. The zero ID stands for "everything": a status file cannot be read, and
	// nothing is known of it from before. A use's Path is the host path by which its evidence names the image; another file
	// may be there by now, so what a path leads to is compared with the ID.
	Uses map[guard.ID][]guard.Use
	// Exceptions are those that hold (imgward allow). There is another Declaration when one begins or ends.
	Exceptions []guard.Exception
}

// Layer is a part of the second layer, in the process that drives it. That may be killed at any moment: what a Layer
// protects by must outlive the process (descriptors with the keeper, pins in bpffs), and its successor goes on with it.
type Layer interface {
	// Name is what status, doctor and the policy call it.
	Name() string
	// Declare has the layer protect what is declared, and nothing else. It returns when that holds; a domain that ended is
	// waited for by whoever wants its disk next, so it takes milliseconds. Calls do not overlap. The error is for the log:
	// what could not be protected, and why; all else is.
	Declare(ctx context.Context, d *Declaration) error
	// Status is the present state. It may be called at any time, and does not wait for Declare.
	Status() Status
	// Close ends what this process does for the layer, and leaves what protects to a successor.
	Close() error
	// Remove takes the layer away: nothing of it is left. It is called in the place of Close.
	Remove() error
}

// Releaser is a Layer that holds what others wait for. Its methods may be called while it Declares.
type Releaser interface {
	Layer
	// HeldFor lists the images by whose uses something is held.
	HeldFor() map[guard.ID]bool
	// Release lets go of what is held for images none of which is in use any more. It takes microseconds.
	Release(inUse func(guard.ID) bool)
}

// Status says what a layer does, for `imgward status`, who and doctor.
type Status struct {
	Layer string `json:"layer"` // Layer.Name
	// Active: it protects. Otherwise Reason says why not, and what to do about it.
	Active bool   `json:"active"`
	Reason string `json:"reason,omitempty"`
	// Strict: it judges writes as well, not only who opens.
	Strict bool `json:"strict,omitempty"`
	// Holds are the images that it protects, one by one, where it can say so.
	Holds []Hold `json:"holds,omitempty"`
}

// Hold is one image that a layer protects, or would if it could.
type Hold struct {
	ID   guard.ID    `json:"id"`
	Path string      `json:"path"` // for people: /dev/NAME of a block device
	Uses []guard.Use `json:"uses"` // why
	// Left says why the layer has let it alone: somebody else holds it exclusively, an exception is in force. Empty: it is held.
	Left string `json:"left,omitempty"`
}

// Config is what a Layer is made of.
type Config struct {
	Log *slog.Logger
	// Guard classifies callers and has the policy. A refusal that a layer sees is reported through Guard.Refused, which
	// explains it on the caller's terminal, logs it, counts it and publishes it.
	Guard *guard.Guard
	// Keeper keeps descriptors for a successor; Kept are those that a predecessor left, by name. A layer's names begin with
	// its own name and a dash. A name has no colon, and 60 bytes at most.
	Keeper Keeper
	Kept   map[string]int
	// Soon has Declare called again, with fresh evidence. It does not block.
	Soon func()
	// Look has all processes looked at before that: a VMM has opened something. It does not block.
	Look func()
}

// Keeper keeps descriptors for a successor (fs/keeper, or systemd's FDSTORE).
type Keeper interface {
	Keep(name string, fd int) error
	Drop(name string)
}

// Maker makes a Layer, or says why this host cannot have it: then the others work without it, and status names the reason.
type Maker struct {
	Name string
	Make func(*Config) (Layer, error)
	// Loads says whether this host's kernel can have it; nil: that is no reason for a mount to start the second layer.
	Loads func() bool
}
