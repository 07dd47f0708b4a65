package imgcopy

import (
	"context"
	"log/slog"

	"golang.org/x/time/rate"
)

// When says whether to use something: by judgement, in any case (else fail), or not at all.
type When string

// The values of When, as the command line spells them.
const (
	Auto   When = "auto"
	Always When = "always"
	Never  When = "never"
)

// Overwrite says what may happen to an existing destination that nobody uses.
type Overwrite string

// The ways to treat an existing destination.
const (
	// Refuse leaves it alone: ErrExists.
	Refuse Overwrite = ""
	// Replace writes a new file and renames it over the old one, which stays whole until then. The new file takes
	// over owner, mode and ACL. Hard links keep the old contents. Devices are written in place.
	Replace Overwrite = "replace"
	// InPlace writes into the same inode: hard links and open descriptors see the new contents, no second image's
	// worth of space is needed, and an interruption leaves half an image.
	InPlace Overwrite = "in-place"
)

// OnError says what becomes of a part of the source that cannot be read.
type OnError string

// The ways to go on after EIO.
const (
	Stop  OnError = "stop"
	Zero  OnError = "zero"  // zeroes in the copy, an entry in the map
	Retry OnError = "retry" // as Zero, but tried again block by block after everything else has been copied
)

// Options are one copy's choices. The zero value is not usable: start from Defaults.
type Options struct {
	Overwrite Overwrite
	// Sync makes the copy durable before it is published, and the name after.
	Sync        bool
	Reflink     When
	Direct      When
	KeepZeroes  bool // copy zeroes as data instead of leaving holes
	Preallocate bool // reserve every block first, holes too
	Preserve    bool // owner, mode, times, xattrs, ACLs
	Requests    int  // reads and writes in flight
	Limit       *rate.Limiter
	Verify      bool
	Manifest    string // where to write it; "" for none
	Resume      bool   // go on with an earlier copy, and leave one to go on with
	StateDir    string // for the state of resumable copies to block devices
	Checkpoint  int64  // bytes copied between two saves of that state
	OnError     OnError
	Map         string // where to write the map of unreadable parts, if there are any
	Live        Live   // nil: a source in use is refused

	Users    Users
	Locks    Locks
	Log      *slog.Logger
	Progress *Progress
	// Explain is told every step as it is decided; nil for nobody.
	Explain func(Step)
	// Confirm is asked before a block device is overwritten; what says what will be lost. An error stops the copy.
	Confirm func(ctx context.Context, what string) error
}

// defaultRequests keeps a device busy while the CPU looks for zeroes; more only costs memory: on the disks measured
// (NVMe, virtio, loop) 8 MiB in flight reached what 32 MiB did.
const defaultRequests = 8

// Defaults is a durable copy to a new name that uses whatever the two sides can do.
func Defaults() Options {
	return Options{
		Sync: true, Reflink: Auto, Direct: Auto, Requests: defaultRequests, OnError: Stop,
		Checkpoint: checkpointEvery,
		Log:        slog.New(slog.DiscardHandler), Progress: new(Progress),
	}
}
