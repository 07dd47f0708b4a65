// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"imgward/guard/procfs"
)

// VMM is a process that plausibly runs a virtual machine, with what it has open and may be an image.
type VMM struct {
	PID     int
	Program string // what it executes, the name alone
	Files   []File
}

// File is a file that a process has open.
type File struct {
	ID   ID     // as stat(2) gives it
	Path string // as the kernel prints it; where the process has a root or a mount namespace of its own, it is relative to that
}

// UnlistedVMMs are the VMMs that the policy's lists do not name. They are evidence with what they have open, as all are.
func (g *Guard) UnlistedVMMs(ctx context.Context) ([]VMM, error) {
	var all []VMM
	err := g.inForce.Load().procs.UnlistedVMMs(ctx, ServesView, func(u procfs.Unlisted) bool {
		vmm := VMM{PID: u.PID, Program: exeName(u.Exe)}
		for i := range u.Files {
			if o := &u.Files[i]; holdsDisk(o) {
				vmm.Files = append(vmm.Files, File{fileID(o), o.Path})
			}
		}
		all = append(all, vmm)
		return true
	})
	return all, err
}
