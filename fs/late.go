// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"imgward/fs/state"
)

// A take-over does not open again what a thousand clients have open, while all of them wait: each handle's file is opened
// at its first use, or a moment later, whichever is sooner. Reads and writes in kernel passthrough need no descriptor of
// ours at all.

// late is what a handle without a descriptor has.
type late struct {
	pending atomic.Bool // there is none yet
	mu      sync.Mutex  // held while it is opened
	// released is set where the keeper had the descriptor once: if the file is gone, so was its last user.
	released bool
}

// ensure opens a handle's file, if that has not been done. A file that is gone leaves the handle without a descriptor: its
// operations fail with EBADF, and nobody else's. Any other failure may pass, and the next use is another try.
func (fs *FS) ensure(h *handle) {
	h.late.mu.Lock()
	defer h.late.mu.Unlock()
	if !h.late.pending.Load() {
		return
	}
	fd, no := fs.openAgain(h)
	switch no {
	case 0:
		h.fd = fd
	case syscall.ESTALE, syscall.ENOENT:
		level := slog.LevelWarn
		if h.late.released {
			level = slog.LevelInfo
		}
		fs.log.Log(fs.ctx, level, "a file that was open is gone", "node", h.node.id, "errno", no)
	default:
		fs.log.Warn("cannot open a file again", "path", fs.pathOf(h.node), "errno", no)
		return
	}
	h.late.pending.Store(false)
}

// openAgain opens the very file that a predecessor had open, with its flags.
func (fs *FS) openAgain(h *handle) (int, syscall.Errno) {
	path, release, no := fs.nodes.acquire(h.node)
	if no != 0 {
		return noFd, no
	}
	defer release()
	open := func() (int, error) { return fs.reopen(path, h.flags) }
	if h.mode&state.ModeDir != 0 {
		open = func() (int, error) { return openDir(path) }
	}
	fd, err := open()
	if err != nil {
		return noFd, errno(err)
	}
	return fd, 0
}

// ensureAll opens what nobody has used yet.
func (fs *FS) ensureAll() {
	for _, h := range fs.handles.all() {
		if h.late.pending.Load() {
			fs.ensure(h)
		}
	}
}

// close closes a handle's descriptor; it will not be opened again.
func (h *handle) close(closeFd func(int)) {
	h.late.mu.Lock()
	fd := h.fd
	h.late.pending.Store(false)
	h.late.mu.Unlock()
	if fd != noFd {
		closeFd(fd)
	}
}

// all lists the handles.
func (t *handleTable) all() []*handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]*handle, 0, len(t.byFH))
	for _, h := range t.byFH {
		list = append(list, h)
	}
	return list
}
