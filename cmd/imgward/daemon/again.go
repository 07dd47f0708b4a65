// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
)

// againWait is how long a daemon that serves on without a mount has to answer; one that is about to end does not.
const againWait = 2 * time.Second

// again mounts a view once more that others have unmounted while VMs hold files of it: its daemon serves them still, and
// knows what they have open. False: there is none.
func (f *Flags) again(mountpoint string) (bool, error) {
	p, err := control.Named(mountpoint)
	if err != nil || p.At != nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), againWait)
	defer cancel()
	v, err := control.Dial(p.Name).View(ctx)
	if err != nil || v.Backing != f.Backing {
		return false, nil // it ends, and is waited for; or MakeDir says that it stays
	}
	o, _, err := f.viewOptions(mountpoint)
	if err != nil {
		return false, err
	}
	err = viewfs.MountAgain(&o, v.PID, v.DeviceFD)
	for _, gone := range []error{unix.ENOTCONN, unix.ESRCH, unix.EBADF} {
		if errors.Is(err, gone) {
			return false, nil // it has just ended
		}
	}
	if err != nil {
		return false, fmt.Errorf("the view on %s was unmounted, and its daemon (pid %d) serves those who hold files of it; it cannot be mounted again: %w", mountpoint, v.PID, err)
	}
	fmt.Fprintf(os.Stderr, "imgward: the view on %s was unmounted while files of it were open; it is there again, as it was\n", mountpoint)
	return true, nil
}
