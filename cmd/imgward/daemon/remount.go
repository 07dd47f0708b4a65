// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
)

// remountOption asks for other flags of a view that is mounted.
const remountOption = "remount"

// remount changes mount(8)'s own flags of a view, as `mount -o remount,ro` does for any file system. All else stays as the
// view was mounted.
func (f *Flags) remount(mountpoint string) error {
	m, err := viewfs.MountAt(mountpoint)
	if err != nil {
		return err
	}
	if m == nil || m.FSType != viewfs.FSType {
		return fmt.Errorf("%s is not an imgward view", mountpoint)
	}
	f.Options = slices.DeleteFunc(f.Options, func(o string) bool { return o == remountOption })
	o, policy, err := f.viewOptions(mountpoint)
	if err != nil {
		return err
	}
	if policy != "" || !o.Passthrough {
		return UsageError{errors.New("remount changes mount(8)'s own flags alone; another policy is imgward policy reload's, all else takes a new mount")}
	}
	if err := viewfs.Remount(m, o.Flags); errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remount %s: %w: files are open for writing (imgward status, fuser -vm %s)", mountpoint, err, mountpoint)
	} else if err != nil {
		return fmt.Errorf("remount %s: %w", mountpoint, err)
	}
	return nil
}
