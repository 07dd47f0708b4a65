// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// Unlink removes a name of a file.
func (fs *FS) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.remove(cancel, in, name, 0)
}

// Rmdir removes an empty directory. There is no image below it, so the guard has nothing to say.
func (fs *FS) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.remove(cancel, in, name, unix.AT_REMOVEDIR)
}

func (fs *FS) remove(cancel <-chan struct{}, in *fuse.InHeader, name string, flags int) fuse.Status {
	d, no := fs.doom(in.NodeId, name)
	if no != 0 {
		return fuse.Status(no)
	}
	defer d.release()
	_, no = fs.exactlyOnce(in, []uint64{d.ino()}, func(before []uint64) bool {
		return before[0] != 0 && before[0] != d.ino()
	}, func() (int, syscall.Errno) { return 0, fs.removeDoomed(cancel, in, d, flags) })
	return fuse.Status(no)
}

func (fs *FS) removeDoomed(cancel <-chan struct{}, in *fuse.InHeader, d *doomed, flags int) syscall.Errno {
	if d.n == nil {
		return syscall.ENOENT
	}
	vs, no := fs.victims(d, guard.OpUnlink)
	if no != 0 {
		return no
	}
	_, unlock, no := fs.permit(cancel, in, vs...)
	if no != 0 {
		return no
	}
	defer unlock()
	if no = fs.keepNameless(d.n); no == 0 {
		no = errno(unix.Unlinkat(d.dirfd, d.name, flags))
	}
	fs.noteNames(d, no)
	return no
}

// keepNameless gives the keeper the descriptors of a file that is about to lose its last name: a successor could not
// open it again. Who opens it from now on sees that it has been here (opened).
func (fs *FS) keepNameless(n *node) syscall.Errno {
	a := n.activity()
	if !n.regular() {
		return 0
	}
	a.mu.Lock()
	a.removed = true
	var handles []*handle
	if a.open != nil {
		handles = slices.Clone(a.open.handles)
	}
	a.mu.Unlock()
	for _, h := range handles {
		fs.ensure(h) // not with mu held
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range handles {
		if a.open == nil || !slices.Contains(a.open.handles, h) {
			continue // closed meanwhile
		}
		if no := fs.keepIfLastName(h); no != 0 {
			return no
		}
	}
	return 0
}

// noteNames ends what keepNameless began, where the file has a name yet: it was one of several, or removing it has failed (no).
// The node's deeds are locked, so nobody is about to remove another one.
func (fs *FS) noteNames(d *doomed, no syscall.Errno) {
	if !d.n.regular() || no == 0 && d.found.Nlink == 1 {
		return
	}
	fd, release, no := fs.nodes.acquire(d.n)
	if no != 0 {
		return
	}
	defer release()
	var st syscall.Stat_t
	if fstat(fd, &st) != nil || st.Nlink == 0 {
		return
	}
	a := d.n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removed = false
}

// keepIfLastName gives a handle's descriptor to the keeper, if its file has no more than one name; node.mu is held.
func (fs *FS) keepIfLastName(h *handle) syscall.Errno {
	var st syscall.Stat_t
	if err := fstat(h.fd, &st); err != nil || st.Nlink > 1 {
		return 0
	}
	return fs.keepDescriptor(h)
}
