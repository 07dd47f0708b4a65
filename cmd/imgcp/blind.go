// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"imgward/guard"
)

// blindSpots names the evidence that this process may not look at: without root, libvirt's status files and other users'
// processes. It does not block a copy, for what can be seen (QEMU's locks above all) still counts, but whoever asks is
// told.
func blindSpots() (spots []string) {
	for _, dir := range guard.DefaultStatusDirs() {
		if strings.Contains(dir.Path, "*") {
			continue
		}
		if _, err := os.ReadDir(dir.Path); errors.Is(err, fs.ErrPermission) {
			spots = append(spots, dir.Path)
		}
	}
	if os.Geteuid() != 0 {
		spots = append(spots, "other users' processes")
	}
	return spots
}
