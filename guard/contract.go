// SPDX-License-Identifier: Apache-2.0

package guard

// The contract's table: what may be done to an image in use, by whom. See DESIGN, "The contract", and docs/semantics.md,
// which are this table in words.

// cell is one of its cells.
type cell int

const (
	free        cell = iota // always
	unwritten               // unless an outsider writes it
	whileIdle               // refused while the image is in use
	whileClosed             // refused only while a live VMM has it open
	checked                 // allowed; each of its writes is judged
	apart                   // allowed where the image's own locks keep the two apart, and checked until they do
)

// row is what an operation is to each kind of caller. Those that the policy trusts have no column: they may do anything.
type row struct{ holder, vmm, manager, outsider cell }

// rowOf is the row of an operation. What is not known here is no less harmful than what is.
func rowOf(op Op) row {
	switch op {
	case OpOpenWrite:
		return row{unwritten, apart, checked, whileIdle}
	case OpTruncate: // O_TRUNC opens, too
		return row{unwritten, whileIdle, whileIdle, whileIdle}
	case OpUnlink, OpRename, OpReplace, OpRenameDir:
		// blockcommit --delete unlinks before the status file changes
		return row{whileClosed, whileIdle, whileClosed, whileIdle}
	}
	return row{free, whileIdle, whileIdle, whileIdle}
}

// opens says whether an operation may open an image for writing.
func (o Op) opens() bool { return o == OpOpenWrite || o == OpTruncate }

// cell is the caller's cell.
func (q *question) cell() cell {
	r := rowOf(q.Op)
	switch {
	case q.holds():
		return r.holder
	case q.caller.Class == ClassVMM:
		return r.vmm
	case q.caller.Class == ClassManager:
		return r.manager
	case q.Op == OpOpenWrite && q.Touches:
		return checked
	}
	return r.outsider
}
