package imgcopy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
	"imgward/copy/internal/sys"
)

// blockDevice is a disk, partition or logical volume that is overwritten in place.
type blockDevice struct {
	*existing
	size int64
	opts *Options
}

// openDevice looks at a device from every side before anything is written: overwriting was asked for, nobody holds or
// mounts it, no domain uses it, it is large enough and not write-protected, and the person has seen what will be lost.
// The open has no O_CREAT, so a typo makes no file in /dev, and O_EXCL, so neither mount nor LVM takes the device
// while it is written.
func openDevice(ctx context.Context, path string, src *source, o *Options) (target, error) {
	info, err := lookAtDevice(path)
	if err != nil {
		return nil, err
	}
	if held := info.Free(); held != nil {
		return nil, fmt.Errorf("%s is %w: %w", path, ErrInUse, held)
	}
	if o.Overwrite == Refuse {
		return nil, &ExistsError{Path: path, Contents: info.String()}
	}
	e, err := seize(ctx, path, unix.O_EXCL, o)
	if err != nil {
		return nil, err
	}
	d := &blockDevice{existing: e, opts: o}
	if err := d.suits(ctx, src, info, o); err != nil {
		e.close()
		return nil, err
	}
	return d, nil
}

// lookAtDevice opens the device for reading only, which disturbs nobody.
func lookAtDevice(path string) (blockdev.Info, error) {
	f, err := openForReading(path)
	if err != nil {
		return blockdev.Info{}, err
	}
	defer f.Close()
	return blockdev.Inspect(f)
}

// suits asks for the confirmation last, when nothing else speaks against the copy.
func (d *blockDevice) suits(ctx context.Context, src *source, info blockdev.Info, o *Options) error {
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
	if src.size > d.size {
		return fmt.Errorf("%w: %s has %s, the image has %s", ErrNoSpace, d.path, Bytes(d.size), Bytes(src.size))
	}
	if o.Confirm == nil {
		return nil
	}
	return o.Confirm(ctx, fmt.Sprintf("%s (%s): %s", d.path, Bytes(d.size), info))
}

// prepare has nothing to do: what follows the image on a larger device stays as it is, as with dd.
func (d *blockDevice) prepare(_ int64, _ func() (int64, error), resumes func(*os.File) bool) error {
	resumes(d.f) // sets where the copy begins
	return nil
}

// statePath is not beside the device: /dev is gone after a reboot.
func (d *blockDevice) statePath() string {
	if d.opts.StateDir == "" {
		return ""
	}
	return filepath.Join(d.opts.StateDir, strings.ReplaceAll(strings.TrimPrefix(d.path, "/"), "/", "-")+".state")
}

func (d *blockDevice) scratch() *os.File { return nil }

func (d *blockDevice) blank() bool { return false }

func (d *blockDevice) commit(sync bool) error {
	return settleData(d.f, sync)
}

func (d *blockDevice) abandon(bool) { d.close() }
