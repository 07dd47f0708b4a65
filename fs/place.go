// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
)

// End unmounts the view, if nobody holds files through it. EBUSY: somebody does, or the view was mounted outside of this
// process's mount namespace, where it has to be unmounted. The mount is told by its device, not by its path alone: what
// stands there by now may be a successor's.
func (s *Session) End() error {
	t, err := s.FS.host.mounts.Table()
	if err != nil {
		return err
	}
	m := t.Find(s.Dev, s.mountpoint)
	switch {
	case m == nil:
		return nil
	case s.FS.host.prepared || !t.Reachable(m):
		return unix.EBUSY
	}
	return unix.Unmount(m.Mountpoint, 0)
}

// at is where the view can be reached; empty if nowhere.
func (s *Session) at() string {
	t, err := s.FS.host.mounts.Table()
	if err != nil {
		return s.mountpoint
	}
	if m := t.Find(s.Dev, s.mountpoint); m != nil && t.Reachable(m) {
		return m.Mountpoint
	}
	return ""
}

// MountsNow is the mount table that the view was mounted in, as it is now.
func (s *Session) MountsNow() (*mounttable.Table, error) { return s.FS.host.mounts.Table() }

// MountTable makes a Reader of the mount table that the view was mounted in; it is the caller's alone.
func (s *Session) MountTable() (*mounttable.Reader, error) {
	if s.watch >= 0 {
		return mounttable.NewReader(s.watch), nil
	}
	if s.FS.host.prepared {
		return nil, fmt.Errorf("read the host's mount table: %w", os.ErrNotExist)
	}
	return mounttable.Open()
}

func keptOr(kept map[string]int, name string, none int) int {
	if fd, ok := kept[name]; ok {
		return fd
	}
	return none
}
