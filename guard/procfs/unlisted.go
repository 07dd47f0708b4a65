// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"os"
)

// Unlisted is a VMM that no list names: neither its executable, by its inode, nor its control group.
type Unlisted struct {
	Process
	Files []OpenFile // as VMMFiles has them
}

// UnlistedVMMs calls yield for every such process, until yield says false. As for VMMFiles, those whose executable skip
// names are left out, and the error is ctx's, or about /proc itself.
func (c *Classifier) UnlistedVMMs(ctx context.Context, skip func(exe string) bool, yield func(Unlisted) bool) error {
	pids, err := c.FS.pids()
	if err != nil {
		return err
	}
	_, err = walk(ctx, &c.walker, pids, func(pid int, found func(Unlisted) bool) {
		exe := c.FS.exePath(pid)
		if exe == "" || pid == os.Getpid() || skip(exe) {
			return // a kernel thread, or this very daemon
		}
		p, err := c.Classify(pid)
		if err != nil || !c.runsVM(p) || p.Listed || c.FS.inCgroup(pid, c.VMMCgroups) {
			return
		}
		u := Unlisted{Process: p}
		c.FS.files(p, nil, func(o OpenFile) bool {
			u.Files = append(u.Files, o)
			return true
		})
		found(u)
	}, yield)
	return err
}
