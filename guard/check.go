package guard

import (
	"context"
	"syscall"
	"time"

	"imgward/guard/policy"
)

// inquiry is one request while it is being judged.
type inquiry struct {
	*Request
	*regime
	ctx    context.Context
	g      *Guard
	caller Process
	rule   *policy.Rule // use governing
	seen   *sight       // use look
}

// Check implements Checker.
func (g *Guard) Check(ctx context.Context, r *Request) Verdict {
	began := time.Now()
	q := &inquiry{Request: r, regime: g.regime.Load(), ctx: ctx, g: g}
	q.caller = q.classify(r.TID, r.UID)
	v := q.judge()
	v.Caller = q.caller
	if !v.Allowed {
		q.mitigate(&v)
	}
	g.counters.decided(&v, time.Since(began))
	return v
}

// judge applies the contract's table (DESIGN, "The contract").
func (q *inquiry) judge() Verdict {
	switch q.caller.Class {
	case ClassTrusted:
		return Verdict{Allowed: true}
	case ClassVMM:
		if v, ok := q.judgeVMM(); ok {
			return v
		}
	}
	if !q.forbids(q.Op) {
		return Verdict{Allowed: true}
	}
	switch cellFor(q.Op, q.caller.Class) {
	case whileClosed:
		if q.scratchOnly() {
			return Verdict{Allowed: true}
		}
		return q.unlessUsed(q.openBy())
	case checked:
		uses := q.uses()
		return Verdict{Allowed: true, Uses: uses, CheckWrites: len(uses) > 0}
	}
	v := q.unlessUsed(q.uses())
	if !v.Allowed {
		return v
	}
	if q.caller.Class == ClassVMM {
		return q.unlessWritten() // O_TRUNC opens for writing, too
	}
	v.CheckWrites = q.governing().Writer == policy.Revoke
	return v
}

// cell is a cell of the contract's table, for callers that do not hold the image.
type cell int

const (
	whileIdle   cell = iota // refused while the image is in use
	whileClosed             // refused only while a live VMM has it open
	checked                 // allowed; its writes are judged one by one
)

func cellFor(op Op, c Class) cell {
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
	switch q.Op {
	case OpOpenWrite:
		return q.unlessWritten(), true
	case OpWrite: // perhaps through a descriptor that a manager opened for it
		return Verdict{Allowed: true}, true
	}
	open, write := q.callerOpened()
	removes := cellFor(q.Op, ClassManager) == whileClosed
	if write && !removes {
		return Verdict{Allowed: true}, true // a guest discards thousands of times a second: no evidence is looked at
	}
	if !open && !q.holds() {
		return Verdict{}, false
	}
	if removes {
		return q.unlessUsed(q.openByOthers()), true
	}
	return q.unlessWritten(), true // O_TRUNC opens, too
}

// unlessWritten keeps two writers apart: it lets a VMM open an image that no outsider writes.
func (q *inquiry) unlessWritten() Verdict {
	writers := q.writers()
	if len(writers) == 0 {
		return q.unlessWrittenBeside()
	}
	if !q.forbids(OpOpenWrite) {
		return Verdict{Allowed: true}
	}
	if q.governing().Writer == policy.Revoke && allChecked(writers) {
		return Verdict{Allowed: true, Writers: openersOf(writers)}
	}
	return Verdict{
		Errno: syscall.EBUSY, Reason: writtenReason(writers[0]), Writers: openersOf(writers), Settles: true,
	}
}

// unlessUsed refuses where there is a use.
func (q *inquiry) unlessUsed(uses []Use) Verdict {
	if len(uses) == 0 {
		return Verdict{Allowed: true}
	}
	return Verdict{Errno: q.errnoFor(q.governing().Errno), Reason: usedReason(uses[0]), Uses: uses, Settles: q.settles(uses)}
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

// mitigate looks whether a refusal is to be given after all: an exception lets the operation through, and so does a
// policy that only watches.
func (q *inquiry) mitigate(v *Verdict) {
	if spend := q.excepted(); spend != nil {
		v.Allowed, v.Spend = true, spend
		return
	}
	v.Message = q.governing().Message
	if q.governing().Mode == policy.Audit {
		v.Allowed, v.Audit = true, true
	}
}
