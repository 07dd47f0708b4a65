// SPDX-License-Identifier: Apache-2.0

package mounttable

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads a mount table again when it has changed. It may be used concurrently.
//
// The kernel says by POLLPRI, once for each open file, that the table has changed since the last poll. So what one Reader
// has seen another on the same open file never would: each needs a file of its own. That holds for Go's runtime as well,
// which polls what os.Open opens: so this is a bare descriptor.
type Reader struct {
	mu    sync.Mutex
	fd    int
	table *Table
}

// Open makes a Reader of this process's mount namespace.
func Open() (*Reader, error) {
	fd, err := OpenFile()
	if err != nil {
		return nil, err
	}
	return NewReader(fd), nil
}

// OpenFile opens the mount table of this process's namespace, for a Reader in this process or another.
func OpenFile() (fd int, err error) {
	fd, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("read the mount table: %w", err)
	}
	return fd, nil
}

// NewReader makes a Reader of what OpenFile has opened, and takes it over.
func NewReader(fd int) *Reader { return &Reader{fd: fd} }

// Close closes the file.
func (r *Reader) Close() error { return unix.Close(r.fd) }

// Table is the table as it is now; where it cannot be read again, as it was.
func (r *Reader) Table() (*Table, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table != nil && !r.changed(0) {
		return r.table, nil
	}
	t, err := r.read()
	if err != nil && r.table != nil {
		return r.table, nil
	}
	return t, err
}

// changed waits for a change for at most so many milliseconds.
func (r *Reader) changed(wait int) bool {
	p := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLPRI}}
	n, err := unix.Poll(p, wait)
	return err != nil && err != unix.EINTR || n > 0
}

func (r *Reader) read() (*Table, error) {
	if _, err := unix.Seek(r.fd, 0, 0); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	t, err := Parse(descriptor(r.fd))
	if err == nil {
		r.table = t
	}
	return t, err
}

// descriptor is an io.Reader.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), b)
		switch {
		case err == unix.EINTR:
		case err == nil && n == 0:
			return 0, io.EOF
		default:
			return max(n, 0), err
		}
	}
}

// lookEvery is how long a wait for a change may last before ctx is looked at again.
const lookEvery = 5 * time.Second

// Follow calls each with the table as it is, and then after each change, until ctx ends. Nobody else may use the Reader.
func (r *Reader) Follow(ctx context.Context, each func(*Table)) error {
	r.changed(0) // what was before is in the first reading
	for ctx.Err() == nil {
		t, err := r.read()
		if err != nil {
			return err
		}
		each(t)
		for ctx.Err() == nil && !r.changed(int(lookEvery.Milliseconds())) {
		}
	}
	return nil
}
