// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AIO writes with io_submit(2) and waits for that one write. It is for files of FUSE file systems in passthrough: there a
// write(2) holds the inode's lock until the medium has answered (fs/fuse/passthrough.c), one at a time, and a submitted
// write only until it is on its way. It is for one goroutine at a time.
type AIO struct{ context uintptr }

// iocb and ioEvent mirror struct iocb and struct io_event of linux/aio_abi.h; blanks are fields that stay 0.
type iocb struct {
	_      uint64 // aio_data
	_, _   uint32 // aio_key, aio_rw_flags
	opcode uint16
	_      int16 // aio_reqprio
	fd     uint32
	buf, n uint64
	offset int64
	_      uint64
	_, _   uint32 // aio_flags, aio_resfd
}

type ioEvent struct {
	_, _ uint64 // data, obj
	res  int64
	_    int64 // res2
}

const cmdPwrite = 1 // IOCB_CMD_PWRITE

// NewAIO makes room for one write at a time; EAGAIN if the host has no more (fs.aio-max-nr).
func NewAIO() (*AIO, error) {
	var a AIO
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&a.context)), 0); e != 0 {
		return nil, os.NewSyscallError("io_setup", e)
	}
	return &a, nil
}

// Close gives the room back. No write may be under way.
func (a *AIO) Close() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, a.context, 0, 0) }

// Pwrite is pwrite(2): it may write less than all of p. p is memory that direct I/O to f can use.
func (a *AIO) Pwrite(f *os.File, p []byte, off int64) (int, error) {
	var n int64
	err := onFile("write", f, func(fd int) (err error) {
		n, err = a.pwrite(fd, p, off)
		return err
	})
	return int(n), err
}

func (a *AIO) pwrite(fd int, p []byte, off int64) (int64, error) {
	cb := &iocb{opcode: cmdPwrite, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&p[0]))), n: uint64(len(p)), offset: off}
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, a.context, 1, uintptr(unsafe.Pointer(&cb))); e != 0 {
		return 0, e // EINTR among others: nothing was submitted
	}
	var done ioEvent
	for {
		n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.context, 1, 1, uintptr(unsafe.Pointer(&done)), 0, 0)
		if e != 0 && !errors.Is(e, unix.EINTR) {
			panic("io_getevents: " + e.Error()) // the kernel may still read p: nothing sane can follow
		}
		if n == 1 {
			break
		}
	}
	runtime.KeepAlive(p)
	runtime.KeepAlive(cb)
	if done.res < 0 {
		return 0, syscall.Errno(-done.res)
	}
	return done.res, nil
}
