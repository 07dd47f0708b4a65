// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/blockdev"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// Stdout looks at a file or block device behind standard output as at any other destination, and keeps it locked until
// release. The shell has opened it, and perhaps truncated it, before anybody could be asked; what is there stays.
func Stdout(ctx context.Context, o *Options) (release func(), err error) {
	if err := sys.CheckOpen(os.Stdout); err != nil {
		return nil, err
	}
	if !move.Seekable(os.Stdout) {
		return func() {}, nil
	}
	path, err := os.Readlink("/proc/self/fd/1")
	if err != nil {
		return nil, err
	}
	flags := unix.O_RDWR // locks want both
	if !move.IsRegular(os.Stdout) {
		flags |= unix.O_EXCL // so that nobody mounts it meanwhile
	}
	f, err := sys.Reopen(os.Stdout, flags)
	switch {
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ETXTBSY):
		if used := idle(ctx, os.Stdout, path, o, anyUse); errors.Is(used, source.ErrInUse) {
			return nil, nothingWritten(used)
		}
		return nil, heldBy(path, err)
	case err != nil: // not this user's to open again
		return func() {}, nothingWritten(idle(ctx, os.Stdout, path, o, anyUse))
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		return nil, err
	}
	e, err := hold(ctx, os.NewFile(uintptr(fd), path), path, o)
	if err != nil {
		return nil, nothingWritten(err)
	}
	return e.Close, nil
}

// heldBy is the error of standard output that could not be opened once more with err: it is mounted, executed or the like.
func heldBy(path string, err error) error {
	if held := blockdev.Held(os.Stdout); held != nil {
		err = held
	}
	return fmt.Errorf("%s is %w: %w; nothing was written to it", path, source.ErrInUse, err)
}

// nothingWritten is the hint that is true of standard output.
func nothingWritten(err error) error {
	var used *source.InUseError
	if errors.As(err, &used) {
		used.Hint = "nothing was written to it"
	}
	return err
}
