// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/unit"
)

// unitDirs are where systemd finds units that somebody has written, or fstab's generator has (systemd.unit(5)). For other
// mounts it has units, too, but nobody depends on those.
var unitDirs = []string{
	"/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator", "/run/systemd/generator.late", "/run/systemd/transient",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// mountUnit is the systemd unit that mounts a directory; empty where there is none, or no systemd.
func mountUnit(dir string) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		return ""
	}
	name := unit.UnitNamePathEscape(dir) + ".mount"
	for _, d := range unitDirs {
		if _, err := os.Stat(filepath.Join(d, name)); err == nil {
			return name
		}
	}
	return ""
}
