// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MountAgain mounts a view once more that is mounted nowhere any more, but whose worker serves those who hold files of it:
// pid is the worker, device its descriptor of the FUSE connection. It is the same file system as before, with all that the
// worker knows of it. Linux before 5.15 mounts no connection a second time (EINVAL).
func MountAgain(o *Options, pid, device int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("find the worker (pid %d): %w", pid, err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, device, 0)
	if err != nil {
		return fmt.Errorf("take the FUSE connection of the worker (pid %d): %w", pid, err)
	}
	dev := os.NewFile(uintptr(fd), "/dev/fuse")
	defer dev.Close()
	tree, err := cloneTree(o.Backing)
	if err != nil {
		return err
	}
	defer tree.Close()
	return mountView(dev, tree, o)
}

// Device is this process's descriptor of the FUSE connection.
func (s *Session) Device() int { return s.device }
