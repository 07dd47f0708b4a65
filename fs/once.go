package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// once writes down, before an operation that must not be done twice, what the world looks like. If a predecessor began
// the very same request, left is what it wrote: comparing it with what is there now tells whether the deed was done.
// The kernel holds the directories locked for as long as a request is unanswered, so nobody else can have done it
// through the view. end is to be called when the operation is over.
func (fs *FS) once(in *fuse.InHeader, words ...uint64) (left *state.Intent, end func()) {
	if in.Unique&resendBit != 0 {
		left = fs.intents.Left(in.Unique &^ resendBit)
	}
	intent := &state.Intent{Unique: in.Unique &^ resendBit, Op: in.Opcode}
	copy(intent.Words[:], words)
	if left != nil {
		intent.Words = left.Words // a third worker must see what the first saw
	}
	return left, fs.intents.Begin(intent)
}

// inoAt is the inode number at a place, 0 if there is nothing.
func inoAt(p place) uint64 {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dirfd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0
	}
	return st.Ino
}

// make runs a deed that fails with EEXIST if something stands at the place. If a predecessor found nothing there when
// it began the same request, then what is there now is its work.
func (fs *FS) make(in *fuse.InHeader, p place, deed func() error) syscall.Errno {
	left, end := fs.once(in, inoAt(p))
	defer end()
	err := deed()
	if err == unix.EEXIST && left != nil && left.Words[0] == 0 {
		return 0
	}
	return errno(err)
}
