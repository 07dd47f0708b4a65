package guard

import (
	"os"

	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
	"imgward/guard/qlock"
)

// sight is what the image itself shows, past all names and handle tables.
type sight struct {
	alone   bool       // nobody but this look has it open
	written bool       // somebody may write to it; only looked at where a VMM wants to open it
	locks   qlock.Held // QEMU's
}

// look opens the image beside the view, once for each request. What cannot be opened shows nothing: neither locks, nor
// that it is alone.
//
// Nobody has a lock on a file that nobody has open. So where the kernel says that, an idle file costs four system calls.
func (q *inquiry) look() *sight {
	if q.seen != nil {
		return q.seen
	}
	q.seen = &sight{}
	if q.Open == nil {
		return q.seen
	}
	fd, err := procfs.OpenRetry(q.Open)
	if err != nil {
		return q.seen
	}
	defer unix.Close(fd)
	leases := &q.g.leases
	if q.seen.alone = !leases.OpenElsewhere(fd, q.Image.Dev); q.seen.alone {
		return q.seen
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
