// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Wait makes a call that may wait in the kernel for as long as somebody else likes (a FIFO is opened, a full pipe
// written to), and gives up on it when ctx ends, with ctx's cause. The call itself is left behind with what it was given.
func Wait[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := call()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// Sleep waits for a time, or until ctx ends, which is an error: its cause.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// NewWriter writes to what may be full for hours, and still hears ctx end. What was being written then may arrive.
func NewWriter(ctx context.Context, f *os.File) io.Writer { return &writer{ctx, f} }

type writer struct {
	ctx context.Context
	f   *os.File
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	return Wait(w.ctx, func() (int, error) { return w.f.Write(p) })
}

// MayWait says that a write of n bytes to f may wait for somebody: it is a pipe or its like, and full, or nearly.
func MayWait(f *os.File, n int) bool {
	st, err := f.Stat()
	if err != nil || st.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) == 0 {
		return false
	}
	const atomic = 4096 // PIPE_BUF: where there is room, there is room for so much
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}
	ready, err := unix.Poll(fds, 0)
	return n > atomic || err != nil || ready == 0
}
