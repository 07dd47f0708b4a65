// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"path"
	"strings"

	"imgward/guard/policy"
)

// explanation is a refusal in the words that a person reads on the terminal.
type explanation struct {
	request *Request
	verdict *Verdict
	path    string          // relative to the view; empty where it is not known
	root    string          // the view's mountpoint
	args    func() []string // of the caller; nil: they are not known
}

// line says what was refused, why, and what to do instead, without the end of the line.
func (x *explanation) line() string {
	c := x.verdict.Caller
	var b strings.Builder
	verdict := "refused"
	if x.verdict.Audit {
		verdict = "let through (the policy only watches)"
	}
	fmt.Fprintf(&b, "imgward: %s: %s (pid %d) would %s: %s.", verdict, printable(c.Comm), c.PID, x.deed(), x.verdict.Reason)
	if m := x.verdict.Message; m != "" {
		fmt.Fprintf(&b, " %s", printable(m))
	}
	if c.Class == ClassVMM || x.verdict.Audit || x.request.Op.ofMount() {
		return b.String()
	}
	b.WriteString(x.instead())
	fmt.Fprintf(&b, " To do it anyway: imgward allow --op %s --for 5m --reason %s %s", x.needs(), ReasonPlaceholder, x.target())
	return b.String()
}

// needs is what the command takes to be let through to its end. Who truncates goes on to write, and truncate(1) and
// fallocate(1) open for writing first.
func (x *explanation) needs() policy.Ops {
	kind := x.request.Op.Kind()
	if kind&(policy.Truncate|policy.Write) != 0 {
		return policy.Truncate | policy.Write
	}
	return kind
}

// deed is what the caller wanted to do.
func (x *explanation) deed() string {
	name := "an image"
	if x.path != "" {
		name = printable(path.Base(x.path))
	}
	switch x.request.Op {
	case OpOpenWrite:
		if x.verdict.Caller.Class == ClassVMM {
			return "open " + name + " for writing"
		}
		return "write to " + name
	case OpWrite:
		return "write to " + name
	case OpTruncate:
		return "truncate " + name
	case OpFallocate:
		return "change the allocation of " + name
	case OpCopyInto:
		return "copy into " + name
	case OpUnlink:
		return "remove " + name
	case OpRename:
		return "rename " + name
	case OpReplace:
		return "replace " + name + " with another file"
	case OpRenameDir:
		return "rename a directory above " + name
	case OpSetFlags:
		return "change the flags of " + name
	case OpUmount:
		return "unmount the view " + name
	case OpMove:
		return "move the mount of the view " + name
	case OpCover:
		return "mount something over " + name
	}
	return string(x.request.Op) + " " + name
}

// target is the image as it is typed in a shell.
func (x *explanation) target() string {
	full := path.Join(x.root, x.path)
	if x.path == "" || printable(full) != full {
		return "PATH"
	}
	return ShellWord(full)
}
