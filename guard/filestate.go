// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
	"imgward/guard/qlock"
)

// fileState is what the image itself shows, past all names and handle tables.
type fileState struct {
	alone   bool       // nobody but the guard has it open
	written bool       // somebody may write to it; only looked at where a VMM wants to open it
	note    bool       // it is too small for an image
	locks   qlock.Held // QEMU's
	born    time.Time  // when it was made; zero: not known
}

// fileState opens the image beside the view, once for each request. What cannot be opened shows nothing: neither locks, nor
// that it is alone.
//
// Nobody has a lock on a file that nobody has open. So where the kernel says that, an idle file costs four system calls.
func (q *question) fileState() *fileState {
	if q.seen != nil {
		return q.seen
	}
	q.seen = &fileState{}
	if q.Open == nil {
		return q.seen
	}
	fd, err := procfs.OpenRetry(q.Open)
	if err != nil {
		return q.seen
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_SIZE|unix.STATX_BTIME, &st) == nil {
		q.seen.born = bornAs(&st)
		q.seen.note = st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 && st.Size <= maxNote
	}
	leases := &q.g.leases
	if q.seen.alone = !leases.OpenElsewhere(fd, q.Image.Dev); q.seen.alone {
		return q.seen
	}
	if q.g.remote(fd) && !onFUSE(fd) {
		if w := openForLocks(fd); w >= 0 {
			defer unix.Close(w)
		}
	}
	q.seen.locks, _ = qlock.ProbeFD(fd) // a file system without locks has none
	if q.caller.Class == ClassVMM {
		q.seen.written = leases.WrittenElsewhere(fd, q.Image.Dev)
	}
	return q.seen
}

// Descriptor makes a Request.Open of a function that opens an os.File.
func Descriptor(open func() (*os.File, error)) func() (int, error) {
	return func() (int, error) {
		f, err := open()
		if err != nil {
			return -1, err
		}
		defer f.Close()
		return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
}
