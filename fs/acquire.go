// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// byID is get and acquire, for an operation on the node that a request names.
func (t *nodeTable) byID(id uint64) (n *node, fd int, release func(), no syscall.Errno) {
	if n, no = t.get(id); no != 0 {
		return nil, -1, nil, no
	}
	fd, release, no = t.acquire(n)
	return n, fd, release, no
}

// acquire returns an O_PATH descriptor of the node and what to call when done with it. ESTALE: the file is gone, and
// nobody has it open. The node's mu must not be held.
func (t *nodeTable) acquire(n *node) (fd int, release func(), no syscall.Errno) {
	return t.acquireBelow(n, 0)
}

func (t *nodeTable) acquireBelow(n *node, depth int) (fd int, release func(), no syscall.Errno) {
	if fd, ok := n.path.use(); ok {
		return fd, func() { t.used(n) }, 0
	}
	fd, err := t.reach(n, depth)
	if err != nil {
		var ok bool
		if fd, ok = n.throughHandle(); !ok {
			return -1, nil, errno(err)
		}
	}
	if t.cacheable() && t.keep(n, fd) {
		if fd, ok := n.path.use(); ok {
			return fd, func() { t.used(n) }, 0
		}
		return t.acquireBelow(n, depth) // it was given up at once
	}
	return fd, func() { t.closeFd(fd) }, 0
}

// used ends a use of a node's own descriptor.
func (t *nodeTable) used(n *node) {
	if closing := n.path.done(); closing != noFd {
		t.closeFd(closing)
	}
}

// throughHandle opens a node by one of its open files, which may have lost its name.
func (n *node) throughHandle() (fd int, ok bool) {
	a := n.active()
	if a == nil {
		return noFd, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		return noFd, false
	}
	for _, h := range a.open.handles {
		if h.late.pending.Load() || h.fd == noFd {
			continue
		}
		if fd, err := pathOfFile(h.fd); err == nil {
			return fd, true
		}
	}
	return noFd, false
}

// maxDepth is how deep directories may be nested to be found by their names: deeper than any that a path can name. What
// was moved beside the view can make the records a circle.
const maxDepth = 2048

// reach opens a node that no descriptor is kept of: by its file handle, or by parent and name.
func (t *nodeTable) reach(n *node, depth int) (int, error) {
	if n.id == rootID {
		root, _ := t.mounts.fd(0)
		return openPath(root, ".") // on a file system without handles it would be its own parent
	}
	rec, ok := t.records.Read(n.slot())
	if !ok || rec.ID != n.id || depth > maxDepth {
		return -1, syscall.ESTALE
	}
	if len(rec.Handle.Bytes) > 0 {
		mount, ok := t.mounts.fd(rec.Mount)
		if !ok {
			return -1, syscall.ESTALE
		}
		return openHandle(mount, rec.Handle)
	}
	parent, no := t.get(rec.Parent)
	if no != 0 {
		return -1, syscall.ESTALE
	}
	pfd, release, no := t.acquireBelow(parent, depth+1)
	if no != 0 {
		return -1, no
	}
	defer release()
	fd, err := openPath(pfd, rec.Name)
	if err != nil {
		return -1, syscall.ESTALE
	}
	var st syscall.Stat_t
	if err := fstat(fd, &st); err != nil || (guard.ID{Dev: st.Dev, Ino: st.Ino}) != n.key {
		unix.Close(fd)
		return -1, syscall.ESTALE
	}
	return fd, nil
}
