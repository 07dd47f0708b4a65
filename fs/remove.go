package viewfs

import (
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
	left, end := fs.once(in, d.ino())
	_, no, ok := became(left)
	switch {
	case ok:
	case left != nil && left.Words[0] != 0 && left.Words[0] != d.ino():
		// A predecessor removed it.
	default:
		no = fs.removeDoomed(cancel, in, d, flags)
	}
	end(0, no)
	return fuse.Status(no)
}

func (fs *FS) removeDoomed(cancel <-chan struct{}, in *fuse.InHeader, d *doomed, flags int) syscall.Errno {
	if d.n == nil {
		return syscall.ENOENT
	}
	_, unlock, no := fs.permit(cancel, in, fs.victims(d, guard.OpUnlink)...)
	if no != 0 {
		return no
	}
	defer unlock()
	if no := fs.keepNameless(d.n); no != 0 {
		return no
	}
	return errno(unix.Unlinkat(d.dirfd, d.name, flags))
}

// keepNameless gives the keeper the descriptors of a file that is about to lose its last name: a successor could not
// open it again. The node is locked, if it is a regular file.
func (fs *FS) keepNameless(n *node) syscall.Errno {
	if n.regular() {
		n.removed = true
	}
	if n.open == nil {
		return 0
	}
	for _, h := range n.open.handles {
		fs.ensure(h)
		var st syscall.Stat_t
		if err := fstat(h.fd, &st); err != nil || st.Nlink > 1 {
			return 0
		}
		if no := fs.keepDescriptor(h); no != 0 {
			return no
		}
	}
	return 0
}
