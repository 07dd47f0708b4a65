// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// TestIoUring: what io_uring opens, and writes through what it opened, is judged like any other open and write.
func TestIoUring(t *testing.T) {
	if r, err := newUring(); err == unix.ENOSYS || err == unix.EPERM {
		need.Kernel(t, "io_uring with IORING_OP_OPENAT (from Linux 5.6 on, with CONFIG_IO_URING and kernel.io_uring_disabled=0)")
	} else if err != nil {
		t.Fatal(err)
	} else {
		r.close()
	}
	bin := t.TempDir()
	agent, outsider := program(t, filepath.Join(bin, "agent")), program(t, filepath.Join(bin, "outsider"))
	v := mount(t, "trusted = [\""+agent+"\"]\n"+allAlways)
	for _, op := range []string{"uring-open", "uring-trunc", "uring-write"} {
		image := v.image(t, op+".img")
		if got := does(t, outsider, 0, op, image); got != "EBUSY" {
			t.Errorf("%s by an outsider: %s, want EBUSY", op, got)
		}
		if got := does(t, agent, 0, op, image); got != "ok" {
			t.Errorf("%s by a trusted program: %s, want ok", op, got)
		}
	}
	if events := v.run(t, "events", v.dir); strings.Count(events, "refused: ") != 3 {
		t.Errorf("want 3 refusals:\n%s", events)
	}
}

// uringOps are what a caller does by io_uring.
var uringOps = map[string]func(r *uring, path string) error{
	"uring-open": func(r *uring, path string) error {
		_, err := r.open(path, unix.O_WRONLY)
		return err
	},
	"uring-trunc": func(r *uring, path string) error {
		_, err := r.open(path, unix.O_WRONLY|unix.O_TRUNC)
		return err
	},
	// An open that does not block is let through (touch), and each write is refused.
	"uring-write": func(r *uring, path string) error {
		fd, err := r.open(path, unix.O_WRONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		return r.write(fd, []byte("x"))
	},
}

// uring is an io_uring that does one thing at a time (<linux/io_uring.h>).
type uring struct {
	fd         int
	ring, sqes []byte
	p          uringParams
}

type uringParams struct {
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

type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, opFlags  uint32
	userData      uint64
	_             [3]uint64
}

const (
	opOpenat  = 18 // IORING_OP_OPENAT, Linux 5.6
	opWrite   = 23 // IORING_OP_WRITE
	sqesAt    = 0x10000000
	getEvents = 1
)

func newUring() (*uring, error) {
	r := &uring{}
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
	r.sqes, err = unix.Mmap(r.fd, sqesAt, int(unsafe.Sizeof(uringSQE{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

func (r *uring) close() {
	_, _, _ = unix.Munmap(r.ring), unix.Munmap(r.sqes), unix.Close(r.fd)
}

func (r *uring) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ring[off])) }

// do submits one thing and waits for it. Nobody else uses the ring, and the system call orders all stores.
func (r *uring) do(sqe uringSQE) (int32, error) {
	*(*uringSQE)(unsafe.Pointer(&r.sqes[0])) = sqe
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

func (r *uring) open(path string, flags uint32) (int32, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	defer runtime.KeepAlive(name)
	return r.do(uringSQE{opcode: opOpenat, fd: unix.AT_FDCWD, addr: uint64(uintptr(unsafe.Pointer(name))), opFlags: flags})
}

func (r *uring) write(fd int32, b []byte) error {
	defer runtime.KeepAlive(b)
	_, err := r.do(uringSQE{opcode: opWrite, fd: fd, addr: uint64(uintptr(unsafe.Pointer(&b[0]))), len: uint32(len(b))})
	return err
}
