// SPDX-License-Identifier: Apache-2.0

// Package target prepares what the conformance tests and benchmarks run on: scratch file systems on loop devices, and
// mounts of imgward and of its peers over them.
package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Scratch is a file system of its own on a loop device.
type Scratch struct {
	Dir   string // where it is mounted, mode 0755
	Type  string // ext4, xfs or btrfs
	image string
}

// NewScratch makes a file system of size bytes in a new file and mounts it at a new directory. Its space is allocated
// as it is used.
func NewScratch(ctx context.Context, image, dir, fstype string, size int64) (*Scratch, error) {
	s := &Scratch{Dir: dir, Type: fstype, image: image}
	if err := os.WriteFile(s.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(s.image, size); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := run(ctx, "mkfs."+fstype, append(mkfsOptions(fstype), s.image)...); err != nil {
		return nil, err
	}
	return s, s.Mount(ctx)
}

// mkfsOptions keep mkfs quiet and, for ext4, make everything at once: lazy initialisation in the background disturbs
// measurements.
func mkfsOptions(fstype string) []string {
	if fstype == "ext4" {
		return []string{"-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"}
	}
	return []string{"-q"}
}

// Mount mounts it, at Dir.
func (s *Scratch) Mount(ctx context.Context) error {
	return run(ctx, "mount", "-t", s.Type, "-o", "loop", s.image, s.Dir)
}

// ReadOnly turns the whole file system read-only, or back. A daemon that still has a file open for writing makes this
// fail for as long as its release is under way, so it is tried again for twenty seconds.
func (s *Scratch) ReadOnly(on bool) error {
	var flags uintptr = unix.MS_REMOUNT
	if on {
		flags |= unix.MS_RDONLY
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := unix.Mount("", s.Dir, "", flags, "")
		if err == nil || time.Now().After(deadline) {
			return wrap(err, "remount "+s.Dir)
		}
		time.Sleep(time.Millisecond)
	}
}

// Close unmounts it and removes its image.
func (s *Scratch) Close() error {
	err := unmount(s.Dir)
	return errors.Join(err, os.Remove(s.image))
}

// unmount waits for the last references to go, which a FUSE daemon that has just ended may still hold.
func unmount(dir string) error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := unix.Unmount(dir, 0)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return wrap(err, "unmount "+dir)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
