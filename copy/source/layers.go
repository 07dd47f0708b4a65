// SPDX-License-Identifier: Apache-2.0

package source

import (
	"os"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/layers"
	"imgward/guard/procfs"
)

// Attached names the loop devices that show the file behind f, and what stands above them; none for a block device,
// whose users are another matter.
func Attached(f *os.File) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	var leases procfs.Leases
	if st.Mode&unix.S_IFMT == unix.S_IFBLK || !leases.OpenElsewhere(int(f.Fd()), st.Dev) {
		return nil, nil
	}
	var names []string
	for _, l := range (layers.Stack{}).Above(layers.ID(guard.StatID(&st))) {
		names = append(names, l.Path)
	}
	return names, nil
}
