// SPDX-License-Identifier: Apache-2.0

package move

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoSpace says that the destination's file system or device is too small, found out before or while copying.
var ErrNoSpace = errors.New("no space")

// OutOfSpace adds ErrNoSpace to the errors that mean it: a full file system, a quota, a device that ends.
func OutOfSpace(err error) error {
	if errors.Is(err, ErrNoSpace) || !(errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}
