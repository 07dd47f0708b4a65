// SPDX-License-Identifier: Apache-2.0

// Package agent runs file-system operations in a process of its own, with a given user and groups.
//
// Credentials, umask, working directory, record locks and open files belong to a process, so a conformance test needs
// several of them at once. A test binary starts copies of itself (Start), which call Serve at the top of TestMain; each
// is then sent one operation at a time and keeps its descriptors, by name, between them.
package agent

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Request is one operation. Its names and arguments are those of the script language.
type Request struct {
	Op   string
	Args []string
	// Bind names the descriptor, handle or background operation that comes of it.
	Bind string
	// Background lets the operation run on; "wait" gets its result, "pending" asserts that there is none yet.
	Background bool
}

// Reply is what came of a Request.
type Reply struct {
	Value string        // what the operation returned, as text; empty for one that returns nothing
	Errno syscall.Errno // 0 when it succeeded
	// Fault is a mistake in the request itself: an unknown operation, a bad argument.
	Fault string
}

// Result gives the reply as an expectation is written: the errno's name, the value, or "ok".
func (r Reply) Result() string {
	switch {
	case r.Fault != "":
		return "fault: " + r.Fault
	case r.Errno != 0:
		return ErrnoName(r.Errno)
	case r.Value == "":
		return "ok"
	}
	return r.Value
}

// ErrnoName gives the symbol of an errno. ENOTSUP and EAGAIN are printed by the names that Linux man pages use first.
func ErrnoName(e syscall.Errno) string {
	if e == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno%d", int(e))
}

// reply turns what an operation returned into a Reply. An error that is no errno is the fault of the test.
func reply(value string, err error) Reply {
	var errno syscall.Errno
	switch {
	case err == nil:
		return Reply{Value: value}
	case errors.As(err, &errno):
		return Reply{Errno: errno}
	}
	return Reply{Fault: err.Error()}
}
