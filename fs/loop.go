// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// loop reads requests and has them handled. go-fuse's own loop reads into memory that dies with the process; this one reads
// into slots of memory that the keeper holds (state.Requests). A slot is freed when the answer has been written, so what a
// worker leaves in them is what it has not answered, and its successor answers that before it reads on. So a death costs
// no request, on any kernel.
//
// fuse.ProtocolServer, which turns bytes into calls of the file system, is marked experimental: this file is all that uses it.
type loop struct {
	log    *slog.Logger
	device int
	proto  *fuse.ProtocolServer
	slots  *state.Requests
	mover  mover // nil in tests
	// panicked decides what becomes of a request that panics.
	panicked func(any) fuse.Status

	idle    atomic.Int32 // readers that wait in read(2)
	maxIdle int32
	readers sync.WaitGroup
	ended   atomic.Bool // the kernel has ended the connection
	// again are the requests that a predecessor may have begun, by unique, while they are handled.
	again   sync.Map
	splicer splicer
	// small and large are what answers are made in.
	small, large sync.Pool
}

// Opcodes (include/uapi/linux/fuse.h) that the loop itself tells apart.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opGetxattr    = 22
	opListxattr   = 23
	opFlush       = 25
	opInit        = 26
	opReaddir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReaddirplus = 44
)

const (
	outHeaderSize = 16
	opcodeAt      = 4 // in a request
	// Answers other than those that replySize knows are a struct, or a path (READLINK).
	smallReply = 8 << 10
	largeReply = outHeaderSize + state.MaxPayload
	// interruptBit marks the number of a request as that of an INTERRUPT of it (FUSE_INT_REQ_BIT).
	interruptBit = 1
	// maxReaders is how many threads wait for requests at most, each with a large slot.
	maxReaders = 16
)

// newLoop makes the loop for a connection whose INIT is known.
func newLoop(fs fuse.RawFileSystem, opts *fuse.MountOptions, device int, slots *state.Requests, init []byte, log *slog.Logger) (*loop, error) {
	l := &loop{
		log: log, device: device, slots: slots, proto: fuse.NewProtocolServer(fs, opts), panicked: opts.PanicHandler,
		maxIdle: int32(min(max(2, runtime.NumCPU()), maxReaders)),
	}
	l.mover, _ = fs.(mover)
	l.splicer.idle = make(chan pipe, idlePipes)
	l.small.New = func() any { return alignedReply(smallReply) }
	l.large.New = func() any { return alignedReply(largeReply) }
	// What it answers is what fuse.Server, which has the same options, has answered the kernel.
	if _, code := l.proto.HandleRequest([][]byte{init}, [][]byte{make([]byte, smallReply)}); !code.Ok() {
		return nil, errors.Join(errors.New("INIT was not understood"), unix.Errno(code))
	}
	return l, nil
}

// alignedReply makes room for an answer, with what follows the header at a page, as O_DIRECT wants it.
func alignedReply(size int) *[]byte {
	const page = 4096
	b := make([]byte, size+page)
	past := int(uintptr(unsafe.Pointer(&b[outHeaderSize])) % page)
	from := (page - past) % page
	b = b[from : from+size : from+size]
	return &b
}

// run answers what a predecessor has left, and then what comes, until the kernel ends the connection.
func (l *loop) run() {
	l.finish()
	l.start()
	l.readers.Wait()
	l.splicer.close()
}

// start starts a reader. It counts as idle at once: where processors are busy, it may be long until it runs, and whoever
// found nobody idle meanwhile would start another, until there is no slot left.
func (l *loop) start() {
	l.idle.Add(1)
	l.readers.Go(l.serve)
}

// finish has what a predecessor has left handled, beside what comes: the kernel has not had answers to these requests, so
// whatever comes now was independent of them.
func (l *loop) finish() {
	left := l.slots.InFlight()
	for _, s := range left {
		if s.Opcode() == opInterrupt {
			l.noteInterrupt(s)
			s.Free()
		}
	}
	for _, s := range left {
		switch op := s.Opcode(); {
		case s.Unique() == 0: // an interrupt
		case op == opForget || op == opBatchForget:
			// A node that is forgotten twice would be gone for the kernel; one that is not, stays in memory until the umount.
			if s.Marked(state.Begun) {
				s.Free()
				continue
			}
			l.readers.Go(func() { l.handle(s) })
		case !l.awaited(s.Unique()):
			s.Free() // answered, right before the death
		default:
			unique, interrupted := s.Unique(), s.Marked(state.Interrupted) // the slot is another request's soon
			l.again.Store(unique, true)
			l.readers.Go(func() { l.handle(s) })
			if interrupted {
				l.readers.Go(func() { l.interruptAgain(unique) })
			}
		}
	}
}

// awaited says whether the kernel waits for the answer to a request. It is told that an interrupt of the request was
// handled, which changes nothing, and fails with ENOENT if there is no such request (fuse_dev_do_write; since 4.20).
//
// To handle an answered request again would not only be wasted: a write could undo another to the same place, which the
// guest made when it had the answer.
func (l *loop) awaited(unique uint64) bool {
	var header [outHeaderSize]byte
	refuse(header[:], unique|interruptBit, fuse.OK)
	_, err := retryEINTR(func() (int, error) { return unix.Write(l.device, header[:]) })
	return err != unix.ENOENT
}

// serve reads and handles requests. Another reader is started whenever all that there are handle something.
func (l *loop) serve() {
	for {
		s := l.slots.Take()
		yield()
		n, err := unix.Read(l.device, s.Buffer())
		if err != nil || n < state.HeaderSize {
			s.Free()
			if l.stops(err) {
				return
			}
			continue
		}
		if l.idle.Add(-1) == 0 {
			l.start()
		}
		l.handle(l.slots.Parked(s))
		if !l.stays() {
			return
		}
	}
}

// stays says whether a reader reads on; it counts as idle then. One that leaves was never counted: others would leave on its
// account, until nobody read any more.
func (l *loop) stays() bool {
	for {
		n := l.idle.Load()
		if n >= l.maxIdle {
			return false
		}
		if l.idle.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// stops says whether an error of read(2) is the end of the connection.
func (l *loop) stops(err error) bool {
	switch err {
	case nil, unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: the request was interrupted before it was read
		return false
	case unix.ECONNABORTED: // it ended while a request was being read: the next read says so
		time.Sleep(lockPauseMin)
		return false
	case unix.ENODEV: // unmounted, or aborted
		l.endAll()
		return true
	}
	l.log.Error("cannot read from the kernel; requests are read on", "error", err)
	time.Sleep(lockPauseMax) // not to fill the log
	return false
}

// endAll has the requests end that wait for something: nobody waits for their answers any more.
func (l *loop) endAll() {
	if l.ended.Swap(true) {
		return
	}
	for _, s := range l.slots.InUse() {
		l.interrupt(s.Unique())
	}
}

// handle answers one request.
func (l *loop) handle(s state.Slot) {
	_, again := l.again.Load(s.Unique())
	if !again && l.mover != nil && (l.move(s) || l.answerPlain(s)) {
		s.Free()
		return
	}
	request := [][]byte{s.Request()}
	switch s.Opcode() {
	case opInterrupt:
		target, moving := l.noteInterrupt(s)
		if target == 0 || moving || l.interrupt(target) {
			s.Free()
			return
		}
		// Not known yet, or answered: go-fuse says EAGAIN, and the kernel asks again if it matters.
	case opForget, opBatchForget:
		s.Mark(state.Begun)
		if s.Opcode() == opForget && l.forget(request[0]) {
			s.Free()
			return
		}
	}
	if again {
		defer l.again.Delete(s.Unique())
		request = resent(request[0])
	}
	pool := &l.small
	if answersLarge(request[0]) {
		pool = &l.large
	}
	room := pool.Get().(*[]byte)
	defer pool.Put(room)
	reply := *room
	n, code := l.proto.HandleRequest(request, [][]byte{reply})
	if !code.Ok() {
		n = refuse(reply, s.Unique(), code)
	}
	if n > 0 {
		l.answer(reply[:n], s)
	}
	s.Free()
}

// noteInterrupt notes at the request that an INTERRUPT is for that it is to end, and returns its number; and whether that
// cannot be hurried (loopdata.go).
func (l *loop) noteInterrupt(s state.Slot) (target uint64, moving bool) {
	b := s.Request()
	if len(b) < state.HeaderSize+8 {
		return 0, false
	}
	target = binary.NativeEndian.Uint64(b[state.HeaderSize:])
	if t, ok := l.slots.Find(target); ok {
		t.Mark(state.Interrupted)
		moving = t.Marked(state.Moving)
	}
	return target, moving
}

// interrupt has go-fuse cancel a request, and says whether it knew it.
func (l *loop) interrupt(unique uint64) bool {
	if _, again := l.again.Load(unique); again {
		unique |= resendBit
	}
	b := make([]byte, state.HeaderSize+8)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], opInterrupt)
	binary.NativeEndian.PutUint64(b[8:], unique|interruptBit)
	binary.NativeEndian.PutUint64(b[state.HeaderSize:], unique)
	n, code := l.proto.HandleRequest([][]byte{b}, [][]byte{make([]byte, outHeaderSize)})
	return n == 0 && code.Ok()
}

// interruptAgain interrupts a request that is about to be handled, as the kernel has asked a predecessor to.
func (l *loop) interruptAgain(unique uint64) {
	for !l.interrupt(unique) {
		if _, handled := l.again.Load(unique); !handled {
			return
		}
		time.Sleep(lockPauseMin)
	}
}

// answersLarge says whether the answer to a request may need more than a small reply: by the size that is asked for.
// Large ones are costly to make, and the garbage collector takes those that nobody uses.
func answersLarge(request []byte) bool {
	var at int // of the size
	switch binary.NativeEndian.Uint32(request[opcodeAt:]) {
	case opRead, opReaddir, opReaddirplus: // fuse_read_in
		at = state.HeaderSize + 16
	case opGetxattr, opListxattr: // fuse_getxattr_in
		at = state.HeaderSize
	case opIoctl: // fuse_ioctl_in
		at = state.HeaderSize + 28
	default:
		return false
	}
	const structs = 1 << 10 // what may come before the payload
	return len(request) < at+4 || binary.NativeEndian.Uint32(request[at:]) > smallReply-structs
}

// answer writes an answer. A request that the kernel does not know any more (ENOENT) has been aborted, or answered by a
// predecessor; and after the end of the connection nobody wants one.
func (l *loop) answer(reply []byte, s state.Slot) {
	binary.NativeEndian.PutUint64(reply[8:], s.Unique())
	_, err := retryEINTR(func() (int, error) { return unix.Write(l.device, reply) })
	if err != nil && err != unix.ENOENT && err != unix.ENODEV {
		l.log.Error("the kernel does not take an answer", "opcode", s.Opcode(), "error", err)
	}
}

// answerWith answers with so many bytes behind the header, or with an errno.
func (l *loop) answerWith(reply []byte, size int, code fuse.Status, s state.Slot) {
	if code.Ok() {
		size += outHeaderSize
		head(reply, size, fuse.OK)
	} else {
		size = refuse(reply, s.Unique(), code)
	}
	l.answer(reply[:size], s)
}

// refuse makes an answer of an errno (struct fuse_out_header).
func refuse(reply []byte, unique uint64, code fuse.Status) int {
	head(reply, outHeaderSize, code)
	binary.NativeEndian.PutUint64(reply[8:], unique)
	return outHeaderSize
}

// head begins an answer of so many bytes; answer fills in its number.
func head(reply []byte, size int, code fuse.Status) {
	binary.NativeEndian.PutUint32(reply, uint32(size))
	binary.NativeEndian.PutUint32(reply[4:], uint32(-int32(code)))
}

// resent is a request with the mark of one that may have been begun before. What is in the slot stays as it was.
func resent(request []byte) [][]byte {
	header := append([]byte(nil), request[:state.HeaderSize]...)
	unique := binary.NativeEndian.Uint64(header[8:])
	binary.NativeEndian.PutUint64(header[8:], unique|resendBit)
	return [][]byte{header, request[state.HeaderSize:]}
}
