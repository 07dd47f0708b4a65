// SPDX-License-Identifier: Apache-2.0

package procfs

import "context"

// What a process may do takes proof: its executable is the very inode that has a listed path on this host, or it is in
// a listed control group, or a process above it is a manager's.

// privilege is what a process is by its own proof. listed: its executable is one that a list names.
func (c *Classifier) privilege(tid int, exe Exe) (k Kind, listed bool) {
	switch {
	case c.FS.matches(exe, c.VMMs):
		return VMM, true
	case c.FS.matches(exe, c.Managers):
		return Manager, true
	case c.FS.matches(exe, c.Trusted):
		return Trusted, true
	case c.FS.inCgroup(tid, c.TrustedCgroups):
		return Trusted, false
	}
	return Outsider, false
}

// maxAncestors bounds the walk to the root of the process tree, which may change while it is walked.
const maxAncestors = 64

// managerAbove looks for a manager among the ancestors: libvirtd forks qemu-img, hooks and helpers, which act for it. It
// does not look above a VMM: what a VMM starts acts for the guest. It must not get stuck with an ancestor that is about
// to execute a program: what cannot be found out makes nobody a manager.
//
// The ancestors are remembered as callers are, so for the next command of the same shell one system call each is enough.
func (c *Classifier) managerAbove(pid int) (above bool) {
	_, _ = walk(context.Background(), &c.walker, []int{pid}, func(pid int, found func(bool) bool) {
		for n := 0; pid > 1 && n < maxAncestors; n++ {
			o, err := c.observe(pid)
			if err != nil || o.proc.Kind == VMM {
				return
			}
			if o.proc.Kind == Manager {
				found(true)
				return
			}
			pid = o.parent
		}
	}, func(is bool) bool {
		above = is
		return true
	})
	return above
}

// Descends says whether a process was started by another one, or by one that was, and so on up.
func (f FS) Descends(pid, from int) bool {
	for n := 0; pid > 1 && n < maxAncestors; n++ {
		status, err := f.Status(pid)
		if err != nil {
			return false
		}
		if status.PPID == from {
			return from > 1
		}
		pid = status.PPID
	}
	return false
}
