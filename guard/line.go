package guard

import (
	"fmt"
	"path"
	"strings"
)

// explanation is a refusal in the words that a person reads on the terminal.
type explanation struct {
	request *Request
	verdict *Verdict
	path    string // relative to the view; empty where it is not known
	root    string // the view's mountpoint
}

// line says what was refused, why, and what to do instead, without the end of the line.
func (x *explanation) line() string {
	c := x.verdict.Caller
	var b strings.Builder
	fmt.Fprintf(&b, "imgward: refused: %s (pid %d) would %s: %s.", printable(c.Comm), c.PID, x.deed(), x.verdict.Reason)
	if m := x.verdict.Message; m != "" {
		fmt.Fprintf(&b, " %s", printable(m))
	}
	if c.Class == ClassVMM {
		return b.String()
	}
	if name := x.freeName(); name != "" {
		fmt.Fprintf(&b, " Next free name: %s.", printable(name))
	}
	fmt.Fprintf(&b, " To do it anyway: imgward allow --op %s --for 5m --reason WHY %s", x.request.Op.Kind(), x.target())
	return b.String()
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
		return "put another file in the place of " + name
	case OpRenameDir:
		return "rename a directory above " + name
	case OpSetFlags:
		return "change the flags of " + name
	}
	return string(x.request.Op) + " " + name
}

// target is the image as it is typed in a shell.
func (x *explanation) target() string {
	full := path.Join(x.root, x.path)
	if x.path == "" || printable(full) != full {
		return "PATH"
	}
	if strings.ContainsFunc(full, func(r rune) bool { return !isPlain(r) }) {
		return "'" + strings.ReplaceAll(full, "'", `'\''`) + "'"
	}
	return full
}

func isPlain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:,@%", r)
}

// freeName is the name that the person may have meant: the next number that no file has yet. The accident that this
// program is about was a 2 in the place of a 3.
func (x *explanation) freeName() string {
	const tries = 200 // a look each, while the caller waits
	switch x.request.Op {
	case OpTruncate, OpOpenWrite, OpReplace, OpCopyInto:
	default:
		return ""
	}
	if x.request.Exists == nil || x.path == "" {
		return ""
	}
	name := path.Base(x.path)
	for range tries {
		name = nextName(name)
		if !x.request.Exists(name) {
			return name
		}
	}
	return ""
}
