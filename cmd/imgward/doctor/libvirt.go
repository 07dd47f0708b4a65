// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"imgward/guard"
)

// libvirt looks at what libvirt's evidence comes from.
func (h *Host) libvirt(context.Context) []Finding {
	var list []Finding
	found := false
	for _, d := range guard.DefaultStatusDirs() {
		if d.Session {
			continue
		}
		_, err := os.ReadDir(d.Path)
		switch {
		case err == nil:
			found = true
			list = append(list, ok("libvirt's running "+d.Driver+" domains are known from "+d.Path))
		case !errors.Is(err, fs.ErrNotExist):
			list = append(list, problem("libvirt's status files cannot be read: "+err.Error(), "until you repair "+d.Path+", every image counts as in use"))
		}
	}
	if found {
		return list
	}
	if _, err := os.Stat("/etc/libvirt"); err == nil {
		return append(list, note("libvirt is installed and has not run since boot: there are no status files yet",
			"nothing: they are noticed when they come, and QEMU is recognised without them"))
	}
	return append(list, ok("there is no libvirt in "+filepath.Dir("/run/libvirt/qemu")+": VMs are recognised by their processes and locks"))
}
