// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"io"
	"log/slog"

	"golang.org/x/time/rate"

	"imgward/copy/dest"
	"imgward/copy/move"
	"imgward/copy/source"
)

// When says whether to use something: by judgement, in any case (else fail), or not at all.
type When string

// The values of When, as the command line spells them.
const (
	Auto   When = "auto"
	Always When = "always"
	Never  When = "never"
)

// OnError says what becomes of a part of the source that cannot be read.
type OnError string

// The ways to go on after EIO.
const (
	Stop  OnError = "stop"
	Zero  OnError = "zero"  // zeroes in the copy, an entry in the map
	Retry OnError = "retry" // as Zero, but tried again block by block after everything else has been copied
)

// The ways in which a copy fails that scripts distinguish; test with errors.Is. Others are source.ErrInUse,
// dest.ErrExists and move.ErrNoSpace. Everything else is a plain failure.
var (
	// ErrVerify: what was read back is not what was written, or not what the manifest says.
	ErrVerify = errors.New("verification failed")
	// ErrIncomplete: the copy was published, but parts of the source could not be read (Options.OnError).
	ErrIncomplete = errors.New("source partly unreadable")
)

// Options are one copy's choices. The zero value is not usable: start from Defaults.
type Options struct {
	dest.Options
	// Sync makes the copy durable before it is published, and the name after.
	Sync       bool
	Reflink    When
	Direct     When
	KeepZeroes bool // copy zeroes as data instead of leaving holes
	Preserve   bool // owner, mode, times, xattrs, ACLs
	Requests   int  // reads and writes in flight
	Limit      *rate.Limiter
	Verify     bool
	Manifest   string // where to write it; "" for none
	Digest     bool   // hash the source with BLAKE3: Result.Digest
	Checkpoint int64  // bytes copied between two saves of that state
	OnError    OnError
	Map        string // where to write the map of unreadable parts, if there are any
	// Flat makes one raw image, of the disk that a guest sees, of an image that is qcow2 or needs others.
	Flat bool
	// Header makes the beginning of the copy of what is in r, in the place of the source's own: the names of other files in
	// it. It is asked about the source as it is copied, and says nil where that stays as it is. Nil: as it is.
	Header   func(r io.ReaderAt) ([]byte, error)
	Progress *move.Progress
	// Explain is told every step as it is decided; nil for nobody.
	Explain func(move.Step)
}

// defaultRequests keeps a device busy while the CPU looks for zeroes; more only costs memory: on the disks measured
// (NVMe, virtio, loop) 8 MiB in flight reached what 32 MiB did.
const defaultRequests = 8

// Defaults is a durable copy to a new name that uses whatever the two sides can do.
func Defaults() Options {
	return Options{
		Sync: true, Reflink: Auto, Direct: Auto, Requests: defaultRequests, OnError: Stop,
		Checkpoint: checkpointEvery, Progress: new(move.Progress),
		Options: dest.Options{Options: source.Options{Log: slog.New(slog.DiscardHandler)}},
	}
}
