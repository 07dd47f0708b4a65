package guard

import (
	"context"
	"syscall"
)

// inquiry is one request while it is being judged.
type inquiry struct {
	*Request
	ctx    context.Context
	g      *Guard
	caller Process
}

// Check implements Checker.
func (g *Guard) Check(ctx context.Context, r *Request) Verdict {
	q := &inquiry{Request: r, ctx: ctx, g: g, caller: g.Classify(r.TID, r.UID)}
	v := q.judge()
	v.Caller = q.caller
	return v
}

// judge applies the contract's table (DESIGN, "The contract").
func (q *inquiry) judge() Verdict {
	if q.caller.Class == ClassVMM {
		if v, ok := q.judgeVMM(); ok {
			return v
		}
	}
	switch ruleFor(q.Op, q.caller.Class) {
	case whileClosed:
		return q.unlessUsed(q.openBy())
	case checked:
		uses := q.uses()
		return Verdict{Allowed: true, Uses: uses, CheckWrites: len(uses) > 0}
	}
	v := q.unlessUsed(q.uses())
	if v.Allowed && q.caller.Class == ClassVMM {
		return q.unlessWritten() // O_TRUNC opens for writing, too
	}
	return v
}

// rule is a cell of the contract's table, for callers that do not hold the image.
type rule int

const (
	whileIdle   rule = iota // refused while the image is in use
	whileClosed             // refused only while a live VMM has it open
	checked                 // allowed; its writes are judged one by one
)

func ruleFor(op Op, c Class) rule {
	if c != ClassManager {
		return whileIdle
	}
	switch op {
	case OpOpenWrite:
		return checked
	case OpUnlink, OpRename, OpReplace, OpRenameDir:
		// blockcommit --delete unlinks before the status file changes
		return whileClosed
	}
	return whileIdle
}

// judgeVMM is the holder's column. It answers nothing (false) for a VMM that does not use this image: such a one is an
// outsider, but for opening it.
func (q *inquiry) judgeVMM() (Verdict, bool) {
	open, write := q.callerOpened()
	switch q.Op {
	case OpOpenWrite:
		return q.unlessWritten(), true
	case OpWrite: // perhaps through a descriptor that a manager opened for it
		return Verdict{Allowed: true}, true
	}
	if !open && !q.holds() {
		return Verdict{}, false
	}
	switch q.Op {
	case OpUnlink, OpRename, OpReplace, OpRenameDir:
		return q.unlessUsed(q.openByOthers()), true
	}
	if write {
		return Verdict{Allowed: true}, true
	}
	return q.unlessWritten(), true // O_TRUNC opens, too
}

// unlessWritten keeps two writers apart.
func (q *inquiry) unlessWritten() Verdict {
	writers := q.writers()
	if len(writers) == 0 {
		return Verdict{Allowed: true}
	}
	return Verdict{Errno: syscall.EBUSY, Reason: writtenReason(writers[0], q.g), Writers: writers, Settles: true}
}

// unlessUsed refuses where there is a use.
func (q *inquiry) unlessUsed(uses []Use) Verdict {
	if len(uses) == 0 {
		return Verdict{Allowed: true}
	}
	return Verdict{Errno: syscall.EBUSY, Reason: usedReason(uses[0]), Uses: uses, Settles: q.settles(uses)}
}

// settles says whether nothing but handles of the view stands behind the uses. QEMU's locks are among them where
// somebody has the image open through the view: they are forwarded from there, and go with the handle.
func (q *inquiry) settles(uses []Use) bool {
	for _, u := range uses {
		if u.Evidence != EvidenceView && (u.Evidence != EvidenceLock || len(q.Openers) == 0) {
			return false
		}
	}
	return true
}
