// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// exactlyOnce does a deed that must not be done twice. words are what the world looks like before it. If a predecessor began
// the very same request, what became of it is the answer; where it did not live to see that, wasDone (nil: never) compares
// its words with what is there now. The kernel holds the directories, or the inode, locked for as long as a request is
// unanswered, so nobody else can have done it through the view.
func (fs *FS) exactlyOnce(in *fuse.InHeader, words []uint64, wasDone func(before []uint64) bool, deed func() (int, syscall.Errno)) (int, syscall.Errno) {
	left, end := fs.once(in, words...)
	done, no, ok := became(left)
	n := int(done)
	if !ok && !(left != nil && wasDone != nil && wasDone(left.Words[:])) {
		n, no = deed()
	}
	end(n, no)
	return n, no
}

// once writes down, before an operation that must not be done twice, what the world looks like. If a predecessor began
// the very same request, left is what it wrote: what became of it, or, where it did not live to see that, words to
// compare with what is there now. The kernel holds the directories, or the inode, locked for as long as a request is
// unanswered, so nobody else can have done it through the view. end is to be called when the operation is over.
func (fs *FS) once(in *fuse.InHeader, words ...uint64) (left *state.Intent, end func(n int, no syscall.Errno)) {
	left = fs.left(in)
	if left != nil {
		words = left.Words[:] // a third worker must see what the first saw
	}
	return left, fs.begin(in, words...)
}

// left is what a predecessor wrote of the request, nil if none began it.
func (fs *FS) left(in *fuse.InHeader) *state.Intent {
	if in.Unique&resendBit == 0 {
		return nil
	}
	return fs.intents.Left(in.Unique &^ resendBit)
}

func (fs *FS) begin(in *fuse.InHeader, words ...uint64) (end func(n int, no syscall.Errno)) {
	intent := &state.Intent{Unique: in.Unique &^ resendBit, Op: uint16(in.Opcode)}
	copy(intent.Words[:], words)
	over := fs.intents.Begin(intent)
	return func(n int, no syscall.Errno) { over(outcome(n, no)) }
}

// An outcome is a count of bytes or an errno. No request is for more than MAX_RW_COUNT bytes, which is below 1<<31.
const failedBit = 1 << 31

func outcome(n int, no syscall.Errno) uint32 {
	if no != 0 {
		return failedBit | uint32(no)
	}
	return uint32(n)
}

// became is what a predecessor's attempt came to; ok is false if there was none, or it did not live to see it.
func became(left *state.Intent) (n uint32, no syscall.Errno, ok bool) {
	switch {
	case left == nil || !left.Over:
		return 0, 0, false
	case left.Result&failedBit != 0:
		return 0, syscall.Errno(left.Result &^ failedBit), true
	}
	return left.Result, 0, true
}

// wasResized says whether a change of size that was begun has been done: before is the size then, now what it is now. What
// somebody else has made of it meanwhile counts as after the change, which is as good an order as any.
func wasResized(before, now, target uint64) bool {
	switch {
	case before > target:
		return now < before
	case before < target:
		return now >= target
	}
	return now != target
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
	now := inoAt(p)
	_, no := fs.exactlyOnce(in, []uint64{now}, func(before []uint64) bool {
		return before[0] == 0 && now != 0
	}, func() (int, syscall.Errno) { return 0, errno(deed()) })
	return no
}
