// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// NewReader reads from a pipe that may be silent for hours, and still hears the context end. The descriptor is
// others' too, so it is not made non-blocking.
func NewReader(ctx context.Context, f *os.File) io.Reader { return &reader{ctx, f} }

type reader struct {
	ctx context.Context
	f   *os.File
}

// pollEvery is how long, in milliseconds, an interruption may go unheard.
const pollEvery = 100

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollEvery)
		if err != nil && err != unix.EINTR {
			return 0, err
		}
		if err == nil && n > 0 {
			return r.f.Read(p)
		}
	}
}
