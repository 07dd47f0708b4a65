// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// poisonous is how soon after a take-over a second panic is taken for the same request's: what was in flight is sent
// again at once.
const poisonous = 2 * time.Second

// panicked is called in a request's goroutine when its operation has panicked. An answer would be an I/O error for
// whoever asked, so this worker ends instead and a successor tries. If that one panics as well, the request is what is
// wrong: it gets its error, and nobody else does.
func (fs *FS) panicked(cause any) fuse.Status {
	last := fs.region.NotePanic(time.Now())
	if !last.IsZero() && time.Since(last) < poisonous {
		fs.log.Error("a request made two workers panic; it is answered with EIO", "panic", cause, "stack", string(debug.Stack()))
		return fuse.EIO
	}
	fs.log.Error("panic; a successor takes over", "panic", cause, "stack", string(debug.Stack()))
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {}
}
