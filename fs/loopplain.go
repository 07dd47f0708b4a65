// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// What is asked most often of names and attributes is handed to the file system by the loop, too, as reads and writes are
// (loopdata.go): questions that change nothing a successor could not do again, opening for reading, and the end of a handle
// or of lookups. None of them can be hurried by an interrupt.

// asked is what a file system does for these.
type asked interface {
	Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status
	GetAttr(cancel <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status
	GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status)
	Flush(cancel <-chan struct{}, input *fuse.FlushIn) fuse.Status
	Open(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status
	Release(cancel <-chan struct{}, input *fuse.ReleaseIn)
	Forget(nodeid, nlookup uint64)
}

const (
	getXAttrInSize = int(unsafe.Sizeof(fuse.GetXAttrIn{}))
	attrOutSize    = int(unsafe.Sizeof(fuse.AttrOut{}))
	entryOutSize   = int(unsafe.Sizeof(fuse.EntryOut{}))
	openInSize     = int(unsafe.Sizeof(fuse.OpenIn{}))
	openOutSize    = int(unsafe.Sizeof(fuse.OpenOut{}))
	sizeOutSize    = int(unsafe.Sizeof(fuse.GetXAttrOut{}))
)

// leastSize is how long a request must be; 0: it is not for answerPlain.
func leastSize(opcode uint32, b []byte) int {
	switch opcode {
	case opLookup:
		return state.HeaderSize + 1
	case opGetattr:
		return int(unsafe.Sizeof(fuse.GetAttrIn{}))
	case opGetxattr:
		return getXAttrInSize + 1
	case opOpen:
		if len(b) >= openInSize && (*fuse.OpenIn)(unsafe.Pointer(&b[0])).Flags&(unix.O_ACCMODE|unix.O_TRUNC) == unix.O_RDONLY {
			return openInSize // others ask the guard, which may wait
		}
	case opFlush:
		return int(unsafe.Sizeof(fuse.FlushIn{}))
	case opRelease:
		return int(unsafe.Sizeof(fuse.ReleaseIn{}))
	}
	return 0
}

// answerPlain answers such a request. False: it did nothing.
func (l *loop) answerPlain(s state.Slot) bool {
	b, opcode := s.Request(), s.Opcode()
	if least := leastSize(opcode, b); least == 0 || len(b) < least || answersLarge(b) {
		return false
	}
	room := l.small.Get().(*[]byte)
	defer l.small.Put(room)
	reply := *room
	s.Mark(state.Moving)
	size, code := l.ask(opcode, b, reply[outHeaderSize:])
	l.answerWith(reply, size, code, s)
	return true
}

// ask has the file system answer into out, and returns how long the answer is.
func (l *loop) ask(opcode uint32, b, out []byte) (size int, code fuse.Status) {
	defer l.recovered(&code)
	in, to := unsafe.Pointer(&b[0]), unsafe.Pointer(&out[0])
	switch opcode {
	case opLookup:
		clear(out[:entryOutSize])
		return entryOutSize, l.mover.Lookup(nil, (*fuse.InHeader)(in), nameIn(b[state.HeaderSize:]), (*fuse.EntryOut)(to))
	case opGetattr:
		clear(out[:attrOutSize])
		return attrOutSize, l.mover.GetAttr(nil, (*fuse.GetAttrIn)(in), (*fuse.AttrOut)(to))
	case opGetxattr:
		return l.askXAttr((*fuse.GetXAttrIn)(in), nameIn(b[getXAttrInSize:]), out)
	case opOpen:
		clear(out[:openOutSize])
		return openOutSize, l.mover.Open(nil, (*fuse.OpenIn)(in), (*fuse.OpenOut)(to))
	case opFlush:
		return 0, l.mover.Flush(nil, (*fuse.FlushIn)(in))
	case opRelease:
		l.mover.Release(nil, (*fuse.ReleaseIn)(in))
	}
	return 0, fuse.OK
}

// askXAttr answers with an attribute, or, asked for no bytes, with its size.
func (l *loop) askXAttr(in *fuse.GetXAttrIn, attr string, out []byte) (size int, code fuse.Status) {
	n, code := l.mover.GetXAttr(nil, &in.InHeader, attr, out[:in.Size])
	switch {
	case in.Size > 0:
		return int(n), code
	case code == fuse.Status(syscall.ERANGE):
		code = fuse.OK
	}
	binary.NativeEndian.PutUint64(out, uint64(n)) // struct fuse_getxattr_out
	return sizeOutSize, code
}

// forget takes back lookups, as the kernel asks in a FORGET. False: it did nothing.
func (l *loop) forget(b []byte) (done bool) {
	if l.mover == nil || len(b) < int(unsafe.Sizeof(fuse.ForgetIn{})) {
		return false
	}
	in := (*fuse.ForgetIn)(unsafe.Pointer(&b[0]))
	var code fuse.Status
	done = true // if it panics, too
	defer l.recovered(&code)
	l.mover.Forget(in.NodeId, in.Nlookup)
	return done
}

// nameIn is a name that ends with a NUL.
func nameIn(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}
