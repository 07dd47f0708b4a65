// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"imgward/fs/state"
)

// Where the kernel does not pass reads and writes through, they are nearly all there is to do. go-fuse allocates more than a
// kilobyte for each request, whose collection was a third of the work. So the loop hands these to the file system itself,
// where nothing is out of the ordinary: no predecessor has begun the request, and no verdict stands before it.

// mover is a file system that moves data, and answers plain questions.
type mover interface {
	asked
	// read is Read.
	read(in *fuse.ReadIn, buf []byte) (int, fuse.Status)
	// cached is the descriptor to read from, if that goes by the page cache.
	cached(in *fuse.ReadIn) (fd int, ok bool)
	// writeUnchecked is Write where no verdict is needed; false: one is, and nothing was done.
	writeUnchecked(in *fuse.WriteIn, data []byte) (uint32, fuse.Status, bool)
}

const (
	readInSize  = int(unsafe.Sizeof(fuse.ReadIn{}))
	writeInSize = int(unsafe.Sizeof(fuse.WriteIn{}))
)

// move answers a read or a write. False: it did nothing.
func (l *loop) move(s state.Slot) (moved bool) {
	b := s.Request()
	switch s.Opcode() {
	case opRead:
		if len(b) < readInSize {
			return false
		}
		return l.moveOut(s, (*fuse.ReadIn)(unsafe.Pointer(&b[0])))
	case opWrite:
		if len(b) < writeInSize {
			return false
		}
		in := (*fuse.WriteIn)(unsafe.Pointer(&b[0]))
		return int(in.Size) == len(b)-writeInSize && l.moveIn(s, in, b[writeInSize:])
	}
	return false
}

func (l *loop) moveOut(s state.Slot, in *fuse.ReadIn) bool {
	size := outHeaderSize + int(in.Size)
	if size > largeReply {
		return false
	}
	s.Mark(state.Moving)
	if l.splice(s, in) {
		return true
	}
	pool := &l.small
	if size > smallReply {
		pool = &l.large
	}
	room := pool.Get().(*[]byte)
	defer pool.Put(room)
	reply := (*room)[:size]
	n, code := l.read(in, reply[outHeaderSize:])
	l.answerWith(reply, n, code, s)
	return true
}

func (l *loop) moveIn(s state.Slot, in *fuse.WriteIn, data []byte) bool {
	s.Mark(state.Moving)
	written, code, done := l.write(in, data)
	if !done {
		s.Unmark(state.Moving)
		return false
	}
	const size = 8 // of struct fuse_write_out
	room := l.small.Get().(*[]byte)
	defer l.small.Put(room)
	reply := *room
	clear(reply[outHeaderSize : outHeaderSize+size])
	binary.NativeEndian.PutUint32(reply[outHeaderSize:], written)
	l.answerWith(reply, size, code, s)
	return true
}

// read and write have a panic handled as go-fuse does.
func (l *loop) read(in *fuse.ReadIn, buf []byte) (n int, code fuse.Status) {
	defer l.recovered(&code)
	return l.mover.read(in, buf)
}

func (l *loop) write(in *fuse.WriteIn, data []byte) (n uint32, code fuse.Status, done bool) {
	done = true // if it panics, that is the answer
	defer l.recovered(&code)
	return l.mover.writeUnchecked(in, data)
}

func (l *loop) recovered(code *fuse.Status) {
	if cause := recover(); cause != nil {
		if *code = l.panicked(cause); code.Ok() {
			*code = fuse.EIO
		}
	}
}
