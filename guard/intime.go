package guard

import (
	"context"
	"time"
)

// maxLooks is how many looks at all processes may be under way. One that meets a process which is in execve(2), and
// waits there for a file system that does not answer, does not come back before that one does (exec_update_lock, seen
// on Linux 6.18; ps hangs as well).
const maxLooks = 8

// looks bounds what is asked of all processes, in number and in time.
type looks chan struct{}

// inTime runs a look and returns what it found; false if it takes longer than patience. Then it goes on by itself, for
// it cannot be called back, and the answer has to be given without it: against a destroyer, for a VM. look must not
// change anything that its caller uses.
func inTime[T any](ctx context.Context, l looks, look func() T) (found T, ok bool) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case l <- struct{}{}:
	case <-late.C:
		return found, false
	case <-ctx.Done():
		return found, false
	}
	done := make(chan T, 1)
	go func() {
		defer func() { <-l }()
		done <- look()
	}()
	select {
	case found = <-done:
		return found, true
	case <-late.C:
	case <-ctx.Done():
	}
	return found, false
}
