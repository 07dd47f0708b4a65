// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// A large read that goes by the page cache is answered with the cache's own pages, by splice(2) through a pipe: the kernel
// copies them once, to whoever reads, and not into the daemon's memory and out of it.
//
// splice(2) may give less than is there, and a short read is the end of the file to QEMU. So only what came whole is an
// answer; else the read is done in the ordinary way. Pages are not given away (SPLICE_F_MOVE): they are the backing file's.

const (
	// spliceFrom is what is worth it.
	spliceFrom = 64 << 10
	// pipeSize is room for the largest read, in pages that are not all whole, and its header. The default is 64 KiB.
	pipeSize = 2 * state.MaxPayload
	// idlePipes is how many are kept open.
	idlePipes = 8
)

// splicer has the pipes that nobody uses. They are empty.
type splicer struct {
	idle chan pipe
	// off: a file system below does not splice, or there is no pipe of that size.
	off atomic.Bool
}

type pipe struct{ in, out int }

func openPipe() (pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, err
	}
	made := pipe{in: p[1], out: p[0]}
	_, err := unix.FcntlInt(uintptr(made.in), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		made.close()
	}
	return made, err
}

func (p pipe) close() {
	unix.Close(p.in)
	unix.Close(p.out)
}

func (sp *splicer) take() (pipe, error) {
	select {
	case p := <-sp.idle:
		return p, nil
	default:
		return openPipe()
	}
}

func (sp *splicer) put(p pipe) {
	select {
	case sp.idle <- p:
	default:
		p.close()
	}
}

// close closes the pipes, when no read is under way.
func (sp *splicer) close() {
	for {
		select {
		case p := <-sp.idle:
			p.close()
		default:
			return
		}
	}
}

// splice answers a read with the pages of the file. False: it is yet to be answered.
func (l *loop) splice(s state.Slot, in *fuse.ReadIn) bool {
	if in.Size < spliceFrom || in.Size > state.MaxPayload || l.splicer.off.Load() {
		return false
	}
	fd, ok := l.mover.cached(in)
	if !ok {
		return false
	}
	p, err := l.splicer.take()
	if err != nil {
		l.splicer.off.Store(true)
		return false
	}
	if err := l.spliceWith(p, fd, s, in); err != nil {
		if err == unix.EINVAL {
			l.splicer.off.Store(true)
		}
		p.close() // with what is in it
		return false
	}
	l.splicer.put(p)
	return true
}

func (l *loop) spliceWith(p pipe, fd int, s state.Slot, in *fuse.ReadIn) error {
	var header [outHeaderSize]byte
	size := outHeaderSize + int(in.Size)
	head(header[:], size, fuse.OK)
	binary.NativeEndian.PutUint64(header[8:], s.Unique())
	if _, err := unix.Write(p.in, header[:]); err != nil {
		return err
	}
	off := int64(in.Offset)
	n, err := unix.Splice(fd, &off, p.in, nil, int(in.Size), unix.SPLICE_F_NONBLOCK)
	if err != nil {
		return err
	}
	if n < int64(in.Size) {
		return unix.ENODATA // the end of the file, perhaps
	}
	// If this fails, so does the ordinary answer, or it is in time.
	_, err = unix.Splice(p.out, nil, l.device, nil, size, 0)
	return err
}
