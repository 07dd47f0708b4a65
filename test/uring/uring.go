// SPDX-License-Identifier: Apache-2.0

// Package uring does by io_uring what a test wants to see judged (<linux/io_uring.h>).
package uring

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations (enum io_uring_op), since 5.6 unless another is said.
const (
	Fallocate = 17
	Openat    = 18
	Write     = 23
	Renameat  = 35 // 5.11
	Unlinkat  = 36 // 5.11
	Command   = 46 // IORING_OP_URING_CMD, 5.19
	Ftruncate = 55 // 6.9
)

// Ring is an io_uring that does one thing at a time.
type Ring struct {
	fd         int
	ring, sqes []byte
	p          params
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// SQE is struct io_uring_sqe: what is to be done.
type SQE struct {
	Op, flags    uint8
	ioprio       uint16
	FD           int32
	Off, Addr    uint64
	Len, OpFlags uint32
	userData     uint64
	Rest         [3]uint64
}

const (
	sqesAt    = 0x10000000
	getEvents = 1
)

// New returns ENOSYS or EPERM where there is none to be had.
func New() (*Ring, error) {
	r := &Ring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r.fd = int(fd)
	var err error
	// One mapping for both rings (IORING_FEAT_SINGLE_MMAP, Linux 5.4).
	size := max(int(r.p.sq.array+4*r.p.sqEntries), int(r.p.cq.cqes+16*r.p.cqEntries))
	if r.ring, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	r.sqes, err = unix.Mmap(r.fd, sqesAt, int(unsafe.Sizeof(SQE{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

// Close gives it back.
func (r *Ring) Close() {
	_, _, _ = unix.Munmap(r.ring), unix.Munmap(r.sqes), unix.Close(r.fd)
}

func (r *Ring) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ring[off])) }

// Do submits one thing and waits for it. Nobody else uses the ring, and the system call orders all stores.
func (r *Ring) Do(sqe SQE) (int32, error) {
	*(*SQE)(unsafe.Pointer(&r.sqes[0])) = sqe
	*r.word(r.p.sq.array) = 0
	*r.word(r.p.sq.tail)++
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, getEvents, 0, 0); errno != 0 {
		return 0, errno
	}
	head := r.word(r.p.cq.head)
	res := *(*int32)(unsafe.Pointer(r.word(r.p.cq.cqes + 16*(*head&*r.word(r.p.cq.mask)) + 8)))
	*head++
	if res < 0 {
		return 0, syscall.Errno(-res)
	}
	return res, nil
}

// Open opens a file for reading, writing, with O_TRUNC, as flags say.
func (r *Ring) Open(path string, flags uint32) (int32, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	defer runtime.KeepAlive(name)
	return r.Do(SQE{Op: Openat, FD: unix.AT_FDCWD, Addr: address(name), OpFlags: flags})
}

// Write writes to the begin of a file.
func (r *Ring) Write(fd int32, b []byte) error {
	defer runtime.KeepAlive(b)
	_, err := r.Do(SQE{Op: Write, FD: fd, Addr: address(&b[0]), Len: uint32(len(b))})
	return err
}

// Unlink removes a name.
func (r *Ring) Unlink(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(name)
	_, err = r.Do(SQE{Op: Unlinkat, FD: unix.AT_FDCWD, Addr: address(name)})
	return err
}

// Rename takes one name for another.
func (r *Ring) Rename(from, to string) error {
	old, err1 := unix.BytePtrFromString(from)
	name, err2 := unix.BytePtrFromString(to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	defer runtime.KeepAlive(old)
	defer runtime.KeepAlive(name)
	here := int32(unix.AT_FDCWD)
	_, err := r.Do(SQE{Op: Renameat, FD: here, Addr: address(old), Len: uint32(here), Off: address(name)})
	return err
}

func address(b *byte) uint64 { return uint64(uintptr(unsafe.Pointer(b))) }
