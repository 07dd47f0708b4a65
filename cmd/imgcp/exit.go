// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/move"
	"imgward/copy/source"
)

// The exit codes. Numbers are never reused: scripts depend on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInUse       = 3
	exitExists      = 4
	exitNoSpace     = 5
	exitVerify      = 6
	exitInterrupted = 130
)

// exitHelp ends the help of every command.
const exitHelp = `
EXIT STATUS
  0    done
  1    failed, or copied with parts of the source missing (--on-error)
  2    usage
  3    refused: the source or the destination is in use
  4    refused: the destination exists
  5    no space
  6    verification failed
  130  interrupted`

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode is the one place where errors become numbers.
func exitCode(err error) int {
	var usage usageError
	var option *imgcopy.OptionError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &option):
		return exitUsage
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, source.ErrInUse):
		return exitInUse
	case errors.Is(err, dest.ErrExists):
		return exitExists
	case errors.Is(err, move.ErrNoSpace):
		return exitNoSpace
	case errors.Is(err, imgcopy.ErrVerify):
		return exitVerify
	}
	return exitFailed
}
