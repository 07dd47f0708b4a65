package guard

import (
	"imgward/guard/policy"
	"imgward/guard/procfs"
	"imgward/guard/qlock"
)

// uses gathers why the image is in use, as far as that counts against the caller, best evidence first. The dear ones
// (opening the file, walking /proc) are only asked when the cheap ones have found nothing.
func (q *inquiry) uses() []Use {
	uses := append(q.listed(), q.policyUses()...)
	uses = append(uses, q.viewUses(q.unlisted(q.openVMMs(), uses))...)
	if len(uses) == 0 {
		uses = q.lockUses()
	}
	if len(uses) == 0 {
		uses = q.directUses()
	}
	return uses
}

// listed is what libvirt's status files say. Being unable to read them in time counts as a use: closed for destroyers.
func (q *inquiry) listed() []Use {
	uses, err := q.g.domains.uses(q.ctx, q.Image)
	if err != nil {
		return unread()
	}
	return uses
}

// unread is the use that stands for status files that cannot be read.
func unread() []Use { return []Use{{Role: RoleUnknown, Evidence: EvidenceLibvirt}} }

// unlisted drops the openers that are known better from a status file.
func (q *inquiry) unlisted(vmms []standing, known []Use) []standing {
	var rest []standing
	for _, o := range vmms {
		if !names(known, o.PID) {
			rest = append(rest, o)
		}
	}
	return rest
}

func names(uses []Use, pid int) bool {
	for _, u := range uses {
		if u.PID == pid {
			return true
		}
	}
	return false
}

// scratchOnly says whether the image is a backup job's scratch file and nothing else. libvirtd removes it when the job
// ends, which is before QEMU closes it; what it holds is of no use to anybody after that.
func (q *inquiry) scratchOnly() bool {
	uses := q.listed()
	for _, u := range uses {
		if u.Role != RoleScratch {
			return false
		}
	}
	return len(uses) > 0 && q.governing().Protect != policy.Always
}

// openBy says which live VMMs, the caller apart, have the image open: through the view, directly, or on another host,
// seen by its locks.
func (q *inquiry) openBy() []Use {
	var uses []Use
	if q.governing().Protect == policy.Always {
		uses = q.policyUses()
	}
	uses = append(uses, q.viewUses(q.openVMMs())...)
	if len(uses) == 0 {
		uses = q.directUses()
	}
	if len(uses) == 0 && len(q.Openers) == 0 {
		// With openers, who are no VMMs, the locks are theirs: qemu-img's.
		uses = q.lockUses()
	}
	return uses
}

// lockUses is evidence by QEMU's image locks. Who holds them cannot be seen (F_OFD_GETLK knows no pid, and those of the
// view's clients are held by the view), so they do not count against a caller that has the image open for writing
// itself beside no VMM (that open was judged when there were no locks yet), nor those of a reader against the only one
// that has it open: the locks are its own. qemu-img commit locks the backing file it reads before it opens that for
// writing.
func (q *inquiry) lockUses() []Use {
	if _, write := q.callerOpened(); write && len(q.openVMMs()) == 0 {
		return nil
	}
	held := q.look().locks
	if !held.Any() || held.Used&(qlock.Write|qlock.Resize) == 0 && q.openedAlone() {
		return nil
	}
	u := Use{Role: RoleUnknown, Writable: held.Used&qlock.Write != 0, Evidence: EvidenceLock}
	if len(q.Openers) > 0 {
		u.PID = q.Openers[0].PID
	}
	return []Use{u}
}

// directUses are the VMMs that have the inode open beside the view: started before the mount, or reaching the backing
// directory by another way. A lease saves the walk through /proc where nobody has the file open.
func (q *inquiry) directUses() []Use {
	if _, write := q.callerOpened(); write && q.caller.Class == ClassOutsider {
		return nil // judged when it opened; since then no VMM could open it
	}
	if q.look().alone {
		return nil
	}
	var uses []Use
	backing := func(o *procfs.OpenFile) bool { return fileID(o) == q.Image }
	stuck, _ := q.procs.VMMFiles(q.ctx, backing, func(o procfs.OpenFile) bool {
		if !(o.PID == q.caller.PID && o.Start == q.caller.Start) && !names(uses, o.PID) {
			uses = append(uses, directUse(&o))
		}
		return true
	})
	for i := range uses {
		uses[i] = q.g.named(q.ctx, q.Image, uses[i])
	}
	if len(uses) == 0 && len(stuck) > 0 {
		uses = []Use{{PID: stuck[0], Role: RoleUnknown, Evidence: EvidenceProcess}} // without a path: see usedReason
	}
	return uses
}

func directUse(o *procfs.OpenFile) Use {
	return Use{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceProcess, Path: o.Path}
}

// holds says whether the calling VMM uses the image by other evidence than a handle of the view: it is the process of a
// domain that lists it, or has it open directly.
func (q *inquiry) holds() bool {
	if names(q.listed(), q.caller.PID) {
		return true
	}
	return q.procs.FS.Holds(procfs.Process{PID: q.caller.PID, Start: q.caller.Start}, func(o *procfs.OpenFile) bool {
		return fileID(o) == q.Image
	})
}

// openByOthers is openBy for a holder that wants to remove a name. Its own temporary file, which nobody else knows of,
// it may remove; not a disk of its domain.
func (q *inquiry) openByOthers() []Use {
	if uses := q.openBy(); len(uses) > 0 {
		return uses
	}
	if open, _ := q.callerOpened(); open {
		return q.listed()
	}
	return nil
}
