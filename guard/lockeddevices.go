// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Block devices on which QEMU's image locks are held, by a VMM that nobody takes for one. The kernel keeps the locks with the
// device's node (locks_inode), so /proc/locks tells them from devtmpfs's inodes, and no device has to be opened.

// QEMU locks single bytes in two ranges (block/file-posix.c).
const (
	firstLock = 100
	lastLock  = 299
)

// addLockedDevices adds those of which nothing else says that they are in use.
func (g *Guard) addLockedDevices(all map[ID][]Use) {
	table, err := os.ReadFile(filepath.Join(g.config.ProcRoot, "locks"))
	var dev unix.Stat_t
	root := g.config.HostRoot + "/dev"
	if err != nil || unix.Stat(root, &dev) != nil {
		return
	}
	locked := lockedNodes(string(table), dev.Dev)
	if len(locked) == 0 {
		return
	}
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || d.Type()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice || unix.Lstat(path, &st) != nil {
			return nil
		}
		id := StatID(&st)
		write, ok := locked[st.Ino]
		if ok && st.Dev == dev.Dev && len(all[id]) == 0 {
			all[id] = []Use{{Role: RoleUnknown, Writable: write, Evidence: EvidenceLock, Path: strings.TrimPrefix(path, g.config.HostRoot)}}
		}
		return nil
	})
}

// lockedNodes are the inodes of a file system on which /proc/locks (proc_locks(5)) shows OFD locks where QEMU's are, and
// whether the locks are those of a writer.
func lockedNodes(table string, dev uint64) map[uint64]bool {
	found := make(map[uint64]bool)
	where := fmt.Sprintf("%02x:%02x:", unix.Major(dev), unix.Minor(dev))
	for line := range strings.Lines(table) {
		// 1: OFDLCK ADVISORY READ -1 00:06:345 100 101
		f := strings.Fields(line)
		if len(f) != 8 || f[1] != "OFDLCK" {
			continue
		}
		node, here := strings.CutPrefix(f[5], where)
		ino, err := strconv.ParseUint(node, 10, 64)
		from, fromErr := strconv.Atoi(f[6])
		to, toErr := strconv.Atoi(f[7])
		if here && err == nil && fromErr == nil && toErr == nil && from >= firstLock && to <= lastLock {
			found[ino] = found[ino] || from <= firstLock+1 && firstLock+1 <= to
		}
	}
	return found
}
