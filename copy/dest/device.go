// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// blockDevice is a disk, partition or logical volume that is overwritten in place.
type blockDevice struct {
	*existing
	size int64
	opts *Options
}

// OpenDevice looks at a device from every side before anything is written: overwriting was asked for, nobody holds or
// mounts it, no domain uses it, it is large enough and not write-protected, and the person has seen what will be lost.
// The open has no O_CREAT, so a typo makes no file in /dev, and O_EXCL, so neither mount nor LVM takes the device
// while it is written.
func OpenDevice(ctx context.Context, path string, size int64, o *Options) (Target, error) {
	info, err := lookAtDevice(path)
	if err != nil {
		return nil, err
	}
	if held := info.Free(); held != nil {
		return nil, fmt.Errorf("%s is %w: %w", path, source.ErrInUse, held)
	}
	if o.Overwrite == Refuse {
		return nil, Exists(ctx, path, info.String(), o)
	}
	e, err := seize(ctx, path, unix.O_EXCL, o)
	if err != nil {
		return nil, err
	}
	d := &blockDevice{existing: e, opts: o}
	if err := d.suits(ctx, size, info, o); err != nil {
		e.Close()
		return nil, err
	}
	return d, nil
}

// lookAtDevice opens the device for reading only, which disturbs nobody.
func lookAtDevice(path string) (blockdev.Info, error) {
	f, err := source.OpenFile(path)
	if err != nil {
		return blockdev.Info{}, err
	}
	defer f.Close()
	return blockdev.Inspect(f)
}

// suits asks for the confirmation last, when nothing else speaks against the copy.
func (d *blockDevice) suits(ctx context.Context, size int64, info blockdev.Info, o *Options) error {
	ro, err := sys.DeviceReadOnly(d.f)
	if err != nil {
		return err
	}
	if ro {
		return fmt.Errorf("%s is write-protected (blockdev --setrw lifts that)", d.path)
	}
	if d.size, err = sys.DeviceSize(d.f); err != nil {
		return err
	}
	if size > d.size {
		return fmt.Errorf("%w: %s has %s, the image has %s", move.ErrNoSpace, d.path, move.Bytes(d.size), move.Bytes(size))
	}
	if o.Confirm == nil {
		return nil
	}
	return o.Confirm(ctx, fmt.Sprintf("%s (%s): %s", d.path, move.Bytes(d.size), info))
}

func (d *blockDevice) Earlier() (*os.File, error) { return d.f, nil }

// Room was looked at when the device was opened.
func (d *blockDevice) Room(int64, func() (int64, error)) error { return nil }

// Prepare has nothing to do: what follows the image on a larger device stays as it is, as with dd.
func (d *blockDevice) Prepare(_, _ int64) error { return nil }

// StatePath is not in the device's directory: /dev is gone after a reboot.
func (d *blockDevice) StatePath() string {
	if d.opts.StateDir == "" {
		return ""
	}
	return filepath.Join(d.opts.StateDir, strings.ReplaceAll(strings.TrimPrefix(d.path, "/"), "/", "-")+".state")
}

func (d *blockDevice) Scratch(int64) (*os.File, error) { return nil, nil }

func (d *blockDevice) Blank() bool { return false }

func (d *blockDevice) Commit(sync bool) error {
	return flush(d.f, sync)
}

func (d *blockDevice) Abandon(bool) { d.Close() }
