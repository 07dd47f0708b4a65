// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"

	"imgward/guard/policy"
	"imgward/guard/procfs"
)

// source is one source of evidence that an image is in use.
type source struct {
	find func(*question) []Use
	// costly: it opens the file or walks /proc, so it is asked only while the others have found nothing.
	costly bool
}

// inUse are all sources, best first.
func inUse() []source {
	return []source{
		{find: (*question).listed}, {find: (*question).policyUses}, {find: (*question).savedUses}, {find: (*question).viewUses},
		{find: (*question).lockUses, costly: true}, {find: (*question).aboveUses, costly: true}, {find: (*question).directUses, costly: true}, {find: (*question).behindLocks, costly: true},
	}
}

// isOpen are the sources that say that a live VMM has the image open, or will want to open it as it is.
func isOpen() []source {
	return []source{
		{find: (*question).alwaysUses}, {find: (*question).savedUses}, {find: (*question).viewUses},
		{find: (*question).aboveUses, costly: true}, {find: (*question).directUses, costly: true}, {find: (*question).besideLocks, costly: true},
		{find: (*question).behindLocks, costly: true},
	}
}

// byFact are the sources that say who uses the image itself, whatever the policy says; layers are asked one by one.
func byFact() []source {
	return []source{
		{find: (*question).listed}, {find: (*question).savedUses}, {find: (*question).viewUses}, {find: (*question).directUses},
		{find: (*question).lockUses, costly: true}, {find: (*question).behindLocks, costly: true},
	}
}

// quickly are those of byFact and the devices above, each costly one only while the others have found nothing.
func quickly() []source {
	return []source{
		{find: (*question).listed}, {find: (*question).savedUses}, {find: (*question).viewUses}, {find: (*question).lockUses, costly: true},
		{find: (*question).aboveUses, costly: true}, {find: (*question).directUses, costly: true}, {find: (*question).behindLocks, costly: true},
	}
}

// gather unites what the sources say. A process that one has named is not named again.
func (q *question) gather(sources []source) []Use {
	var uses []Use
	for _, s := range sources {
		if s.costly && slices.ContainsFunc(uses, func(u Use) bool { return u.doubt == certain }) {
			continue
		}
		for _, u := range s.find(q) {
			if u.PID == 0 || !names(uses, u.PID) || u.Evidence == EvidenceLibvirt || u.Evidence == EvidenceChain {
				uses = append(uses, u)
			}
		}
	}
	return uses
}

// uses are the reasons why the image is in use, as far as they count against the caller.
func (q *question) uses() []Use {
	uses := q.gather(inUse())
	if q.caller.Class == ClassVMM && (q.Op == OpOpenWrite || q.Op == OpWrite) {
		uses = slices.DeleteFunc(uses, q.forVMM)
	}
	return uses
}

// forVMM says whether a use does not keep a VMM from writing: what could not be found out, and what the policy wants kept
// from others than its own VM.
func (q *question) forVMM(u Use) bool {
	return u.doubt != certain || u.Evidence == EvidencePolicy && q.caller.Listed
}

// listed is what libvirt's status files say.
func (q *question) listed() []Use { return slices.Clone(q.status().uses) }

// unread is the use that stands for status files that cannot be read.
func unread() []Use { return []Use{{Role: RoleUnknown, Evidence: EvidenceLibvirt, doubt: notRead}} }

func names(uses []Use, pid int) bool {
	return slices.ContainsFunc(uses, func(u Use) bool { return u.PID == pid })
}

// shared says whether all that use the image share it with others.
func shared(uses []Use) bool {
	return !slices.ContainsFunc(uses, func(u Use) bool { return !u.shareable })
}

// openBy says which live VMMs, the caller apart, have the image open, for somebody who wants to remove a name of it.
//
// libvirtd removes a backup job's scratch file when the job ends, which is before QEMU closes it; what it holds is of no
// use to anybody after that. A holder may remove a temporary file of its own, which nobody else knows of, and no disk
// of its domain.
func (q *question) openBy() []Use {
	if q.caller.Class == ClassManager && q.scratchOnly() {
		return nil
	}
	uses := q.gather(isOpen())
	if open, _ := q.callerOpened(); len(uses) == 0 && open && q.caller.Class == ClassVMM {
		return q.listed()
	}
	return uses
}

// scratchOnly says whether the image is a backup job's scratch file and nothing else.
func (q *question) scratchOnly() bool {
	uses := q.status().uses
	return len(uses) > 0 && q.governing().Protect != policy.Always &&
		!slices.ContainsFunc(uses, func(u Use) bool { return u.Role != RoleScratch })
}

// alwaysUses is the policy's word alone.
func (q *question) alwaysUses() []Use {
	if q.governing().Protect != policy.Always {
		return nil
	}
	return q.policyUses()
}

// viewUses are the VMMs that have opened the image through the view.
func (q *question) viewUses() []Use {
	var uses []Use
	for _, o := range q.openVMMs() {
		u := Use{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceView}
		uses = append(uses, q.g.named(q.ctx, q.Image, u))
	}
	return uses
}

// directUses are the VMMs that have the inode open without having opened it through the view: started before the mount,
// reaching the backing directory by another way, or passed a descriptor. A lease saves the walk through /proc where
// nobody has the file open.
func (q *question) directUses() []Use {
	if q.caller.Class == ClassOutsider && q.openedIdle() {
		return nil // since then no VMM could open it
	}
	if q.fileState().alone {
		return nil
	}
	var uses []Use
	hung, _ := q.procs.VMMFiles(q.ctx, q.isImage, ServesView, func(o procfs.OpenFile) bool {
		if !(o.PID == q.caller.PID && o.Start == q.caller.Start) && !names(uses, o.PID) && holdsDisk(&o) {
			uses = append(uses, directUse(&o))
		}
		return true
	})
	for i := range uses {
		uses[i] = q.g.named(q.ctx, q.Image, uses[i])
	}
	if len(uses) == 0 && len(hung) > 0 {
		uses = []Use{{PID: hung[0], Role: RoleUnknown, Evidence: EvidenceProcess, doubt: stuck}}
	}
	return uses
}

func directUse(o *procfs.OpenFile) Use {
	return Use{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceProcess, Path: o.Path}
}

// maxNote is the size of the largest file that is a note and no disk: a pid and the end of its line, say. The smallest
// header of an image is larger.
const maxNote = 32

// holdsDisk says whether what a VMM has open may be an image, and not its log or pid file. A file that is empty may be an
// image that is being made.
func holdsDisk(o *procfs.OpenFile) bool { return !o.Stream && (o.Size == 0 || o.Size > maxNote) }
