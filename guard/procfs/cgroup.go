// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"path"
	"strings"
)

// inCgroup says whether the process is in one of the control groups that the globs name, or below one. Only root can
// move a process into a group that is not the mover's own, so a group is as good as an executable.
func (f FS) inCgroup(id int, globs []string) bool {
	if len(globs) == 0 {
		return false
	}
	buf := make([]byte, 4096)
	n, err := f.read(id, "cgroup", buf)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(buf[:n]) {
		// "0::/system.slice/backup.service"; see cgroups(7). The names of version 1 hierarchies count as well.
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) == 3 && belowAny(globs, fields[2]) {
			return true
		}
	}
	return false
}

// belowAny matches a group and all groups above it, but for the root, in which everybody is.
func belowAny(globs []string, group string) bool {
	for ; len(group) > 1; group = path.Dir(group) {
		for _, g := range globs {
			if ok, err := path.Match(g, group); ok && err == nil {
				return true
			}
		}
	}
	return false
}
