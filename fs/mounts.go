// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts are the file systems of the backing tree: the one that the view is mounted over, and those mounted below it.
// A file handle is opened on a descriptor of its own file system.
type mounts struct {
	keeper Keeper

	mu    sync.RWMutex
	fds   []int          // by index; real directories, not O_PATH
	byDev map[uint64]int // st_dev → index
}

// noMount says that a file's handle is of no use, because no descriptor of its file system could be had.
const noMount = 0xff

// mountName is what the keeper calls a mount's descriptor.
func mountName(i int) string { return "mount-" + strconv.Itoa(i) }

// add takes over fd, a directory on the file system with this st_dev.
func (m *mounts) add(fd int, dev uint64) int {
	m.fds = append(m.fds, fd)
	m.byDev[dev] = len(m.fds) - 1
	return len(m.fds) - 1
}

func (m *mounts) fd(index uint16) (int, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if int(index) >= len(m.fds) {
		return -1, false
	}
	return m.fds[index], true
}

// index finds the mount that the inode behind fd is on. A device not seen before is reached through its own root
// directory (a mount point) or, when the file is on it alone (btrfs subvolume, bind-mounted file), through the file.
func (m *mounts) index(fd int, st *syscall.Stat_t, parent *node) uint16 {
	m.mu.RLock()
	i, ok := m.byDev[st.Dev]
	m.mu.RUnlock()
	if ok {
		return uint16(i)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return noMount
	}
	dir, err := openDir(fd) // with nothing locked: its file system may not answer
	if err != nil {
		return noMount
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, ok := m.byDev[st.Dev]; ok || len(m.fds) >= noMount {
		unix.Close(dir)
		if !ok {
			i = noMount
		}
		return uint16(i)
	}
	i = m.add(dir, st.Dev)
	if err := m.keeper.Keep(mountName(i), dir); err != nil {
		unix.Close(dir)
		m.fds, i = m.fds[:i], noMount
		delete(m.byDev, st.Dev)
	}
	return uint16(i)
}

// of finds the file system with this st_dev, and a directory on it.
func (m *mounts) of(dev uint64) (index uint16, dir int, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, ok := m.byDev[dev]
	if !ok {
		return noMount, -1, false
	}
	return uint16(i), m.fds[i], true
}

// root says whether a device is the one that the view's root is on.
func (m *mounts) root(dev uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, ok := m.byDev[dev]
	return ok && i == 0
}
