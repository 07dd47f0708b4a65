// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"syscall"
	"time"

	"imgward/guard/policy"
)

// question is one request while it is being judged, with what was found out for it so far.
type question struct {
	*Request
	*inForce
	ctx     context.Context
	g       *Guard
	caller  Process
	rule    *policy.Rule // use governing
	seen    *fileState   // use fileState
	stated  *stated      // use status
	current []liveOpener // use openers
	name    *string      // use path
}

// Check implements Checker.
func (g *Guard) Check(ctx context.Context, r *Request) Verdict {
	began := time.Now()
	q := &question{Request: r, inForce: g.inForce.Load(), ctx: ctx, g: g}
	q.caller = q.classify(r.TID, r.UID)
	v := q.judge()
	v.Caller = q.caller
	q.noteWriter()
	if !v.Allowed {
		q.mitigate(&v)
	}
	g.counters.decided(&v, time.Since(began))
	return v
}

// judge applies the contract's table.
func (q *question) judge() Verdict {
	switch {
	case q.caller.Class == ClassTrusted:
		return Verdict{Allowed: true, Reason: "the policy trusts who asks"}
	case q.caller.Class == ClassVMM && q.writesItself() && rowOf(q.Op).holder != whileClosed && q.Op != OpOpenWrite:
		return Verdict{Allowed: true} // a guest discards thousands of times a second: no evidence is looked at
	case !q.forbids(q.Op):
		if q.caller.Class == ClassVMM && q.Op.opens() {
			return q.unlessWritten()
		}
		return Verdict{Allowed: true, Reason: q.permittedReason()}
	}
	if q.status().runs(q.caller.PID) {
		q.isVMM()
	}
	v := q.apply(q.cell())
	if !v.Allowed && q.caller.Class == ClassOutsider && q.procs.RunsVM(processOf(&q.caller)) {
		q.isVMM()
		v = q.apply(q.cell())
	}
	return v
}

// isVMM notes that the caller has proved to be a VMM.
func (q *question) isVMM() {
	q.procs.MarkVMM(processOf(&q.caller))
	q.caller.Class = ClassVMM
}

func (q *question) apply(c cell) Verdict {
	switch c {
	case free:
		return Verdict{Allowed: true}
	case unwritten:
		return q.unlessWritten()
	case checked:
		uses := q.uses()
		revocable := q.caller.Class == ClassOutsider && q.governing().Writer == policy.Revoke
		return Verdict{Allowed: true, Uses: uses, CheckWrites: len(uses) > 0 || revocable}
	case apart:
		return q.unlessUnlocked()
	case whileClosed:
		return q.unlessUsed(q.openBy())
	}
	v := q.unlessUsed(q.uses())
	switch {
	case !v.Allowed:
	case q.caller.Class == ClassVMM && q.Op.opens():
		return q.unlessWritten()
	default:
		v.CheckWrites = q.governing().Writer == policy.Revoke
	}
	return v
}

// unlessUnlocked lets a VMM that does not hold the image open it for writing, where QEMU's locks keep it from writing
// beside the one that uses it, or the two share the disk. A migration's destination opens like that, and writes when the
// source has let go of its locks.
func (q *question) unlessUnlocked() Verdict {
	uses := q.uses()
	if len(uses) > 0 && !shared(uses) && !q.locksHonoured() {
		return q.unlessUsed(uses)
	}
	v := q.unlessWritten()
	v.CheckWrites = v.Allowed && len(uses) > 0 && !shared(uses)
	return v
}

// unlessWritten keeps two writers apart: it lets a VMM open an image that no outsider writes.
func (q *question) unlessWritten() Verdict {
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
		Errno: syscall.EBUSY, Reason: writtenReason(writers[0]), Writers: openersOf(writers), MayPass: true,
	}
}

// unlessUsed refuses where there is a use.
func (q *question) unlessUsed(uses []Use) Verdict {
	if len(uses) == 0 || q.sparesNames(uses) {
		return Verdict{Allowed: true}
	}
	return Verdict{Errno: q.errnoFor(q.governing().Errno), Reason: usedReason(uses[0]), Uses: uses, MayPass: q.mayPass(uses)}
}

// mayPass says whether nothing but handles of the view stands behind the uses. QEMU's locks are among them where
// somebody has the image open through the view: they are forwarded from there, and go with the handle.
func (q *question) mayPass(uses []Use) bool {
	for _, u := range uses {
		if u.Evidence != EvidenceView && (u.Evidence != EvidenceLock || u.PID == 0) {
			return false
		}
	}
	return true
}

// mitigate looks whether a refusal is to be given after all: an exception lets the operation through, and so does a
// policy that only watches.
func (q *question) mitigate(v *Verdict) {
	if e := q.excepted(); e != nil {
		v.Allowed, v.Exception, v.Spend = true, e.ID, q.spend(e)
		// It may end before the handle does, and be for the truncation alone.
		v.CheckWrites = q.Op.opens() && q.caller.Class != ClassVMM
		return
	}
	v.Message = q.governing().Message
	if q.governing().Mode == policy.Audit {
		v.Allowed, v.Audit = true, true
	}
}
