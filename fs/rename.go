// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// Rename moves a name, with renameat2's flags. The guard is asked about the file that loses its name, the one that
// loses its place, and, where a directory moves, every image in use below it. A refusal is never EXDEV, for which mv
// would copy and unlink; between file systems mounted below the view that is the answer, as natively.
func (fs *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, no := fs.doom(in.NodeId, oldName)
	if no != 0 {
		return fuse.Status(no)
	}
	defer from.release()
	to, no := fs.doom(in.Newdir, newName)
	if no != 0 {
		return fuse.Status(no)
	}
	defer to.release()

	fromIno, toIno := from.ino(), to.ino()
	_, no = fs.exactlyOnce(&in.InHeader, []uint64{fromIno, toIno}, func(before []uint64) bool {
		done := wasRenamed(in.Flags, before[0], before[1], fromIno, toIno)
		if done {
			fs.noteMove(&doomed{place: from.place, n: to.n}, &doomed{place: to.place, n: from.n}, in.Flags)
		}
		return done
	}, func() (int, syscall.Errno) { return 0, fs.rename(cancel, in, from, to) })
	return fuse.Status(no)
}

func (fs *FS) rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to *doomed) syscall.Errno {
	if from.n == nil {
		return syscall.ENOENT
	}
	vs, no := fs.renameVictims(from, to, in.Flags)
	if no != 0 {
		return no
	}
	_, unlock, no := fs.permit(cancel, &in.InHeader, vs...)
	if no != 0 {
		return no
	}
	defer unlock()
	replaces := to.n != nil && to.n != from.n && in.Flags&(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) == 0
	if replaces {
		no = fs.keepNameless(to.n)
	}
	if no == 0 {
		no = errno(unix.Renameat2(from.dirfd, from.name, to.dirfd, to.name, uint(in.Flags)))
	}
	if replaces {
		fs.noteNames(to, no)
	}
	if no == 0 {
		fs.noteMove(from, to, in.Flags)
	}
	return no
}

// wasRenamed says whether a rename that was begun has been done: before is what the two names meant then, now what they
// mean.
func wasRenamed(flags uint32, fromBefore, toBefore, fromNow, toNow uint64) bool {
	if flags&unix.RENAME_EXCHANGE != 0 {
		return fromNow == toBefore && toNow == fromBefore && fromBefore != toBefore
	}
	return toNow == fromBefore && fromNow != fromBefore
}

func (fs *FS) renameVictims(from, to *doomed, flags uint32) ([]victim, syscall.Errno) {
	if to.n == from.n || to.n != nil && flags&unix.RENAME_NOREPLACE != 0 {
		return nil, 0 // does nothing, or fails
	}
	vs, no := fs.victims(from, guard.OpRename)
	if no != 0 {
		return nil, no
	}
	op := guard.OpReplace
	if flags&unix.RENAME_EXCHANGE != 0 {
		op = guard.OpRename
	}
	more, no := fs.victims(to, op)
	return append(vs, more...), no
}

// noteMove notes the new places of nodes that are found by parent and name: from and to are as they were before the rename.
func (fs *FS) noteMove(from, to *doomed, flags uint32) {
	fs.nodes.noteMove(from.n, to.place)
	if flags&unix.RENAME_EXCHANGE != 0 && to.n != nil {
		fs.nodes.noteMove(to.n, from.place)
	}
}

func (d *doomed) ino() uint64 {
	if d.n == nil {
		return 0
	}
	return d.n.key.Ino
}

// Link gives a file one more name.
func (fs *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	_, fd, release, no := fs.nodes.byID(in.Oldnodeid)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	p, no := fs.at(in.NodeId, name)
	if no != 0 {
		return fuse.Status(no)
	}
	defer p.release()
	no = fs.make(&in.InHeader, p, func() error {
		return unix.Linkat(fd, "", p.dirfd, name, unix.AT_EMPTY_PATH)
	})
	if no != 0 {
		return fuse.Status(no)
	}
	made, err := openPath(p.dirfd, name)
	if err != nil {
		return fuse.ToStatus(err)
	}
	return fuse.Status(fs.enter(made, p.parent, name, out))
}

// Readlink reads a symbolic link's target.
func (fs *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	_, fd, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return nil, fuse.Status(no)
	}
	defer release()
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return buf[:size], fuse.OK
}
