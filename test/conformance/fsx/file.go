// SPDX-License-Identifier: Apache-2.0

package fsx

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is one real file, with a descriptor for each way in.
type file struct {
	path   string
	fds    [ways]int
	append int
}

func openFile(path string) (*file, error) {
	f := &file{path: path}
	return f, f.open()
}

func (f *file) open() error {
	var err error
	open := func(flags int) int {
		fd, e := unix.Open(f.path, flags|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		if e != nil {
			err = fmt.Errorf("open %s: %w", f.path, e)
		}
		return fd
	}
	f.fds[buffered] = open(unix.O_RDWR)
	f.fds[direct] = open(unix.O_RDWR | unix.O_DIRECT)
	f.fds[mapped] = open(unix.O_RDWR)
	f.fds[second] = open(unix.O_RDWR)
	f.append = open(unix.O_WRONLY | unix.O_APPEND)
	return err
}

func (f *file) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
	unix.Close(f.append)
}

func (f *file) size() (int, error) {
	var st unix.Stat_t
	err := unix.Stat(f.path, &st)
	return int(st.Size), err
}

// fallocateModes are the kinds that are one fallocate.
var fallocateModes = map[kind]uint32{
	allocate: 0,
	reserve:  unix.FALLOC_FL_KEEP_SIZE,
	punch:    unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
	zero:     unix.FALLOC_FL_ZERO_RANGE,
	zeroKeep: unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	collapse: unix.FALLOC_FL_COLLAPSE_RANGE,
	insert:   unix.FALLOC_FL_INSERT_RANGE,
}

// apply does the operation and returns what a read brought. The error is a bare errno.
func (f *file) apply(o operation) ([]byte, error) {
	if mode, ok := fallocateModes[o.kind]; ok {
		return nil, unix.Fallocate(f.fds[o.via], mode, int64(o.offset), int64(o.length))
	}
	switch o.kind {
	case read:
		return f.read(o)
	case write:
		return nil, f.write(o)
	case appendTo:
		_, err := unix.Write(f.append, o.data())
		return nil, err
	case truncate:
		return nil, unix.Ftruncate(f.fds[o.via], int64(o.offset))
	case copyRange:
		return nil, f.copyRange(o)
	case sync:
		return nil, unix.Fsync(f.fds[o.via])
	case reopen:
		f.close()
		return nil, f.open()
	case evict:
		return nil, f.evict()
	case holes:
		return nil, f.checkHoles()
	}
	return nil, unix.ENOSYS
}

func (f *file) read(o operation) ([]byte, error) {
	if o.via == mapped {
		return f.readMapped(o)
	}
	buf := aligned(o.length)
	n, err := unix.Pread(f.fds[o.via], buf, int64(o.offset))
	return buf[:max(n, 0)], err
}

func (f *file) write(o operation) error {
	if o.via == mapped {
		return f.writeMapped(o)
	}
	buf := aligned(o.length)
	copy(buf, o.data())
	n, err := unix.Pwrite(f.fds[o.via], buf, int64(o.offset))
	if err == nil && n != len(buf) {
		return io.ErrShortWrite
	}
	return err
}

func (f *file) copyRange(o operation) error {
	from, to := int64(o.offset), int64(o.to)
	for left := o.length; left > 0; {
		n, err := unix.CopyFileRange(f.fds[buffered], &from, f.fds[o.via], &to, left, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		left -= n
	}
	return nil
}

func (f *file) evict() error {
	if err := unix.Fsync(f.fds[buffered]); err != nil {
		return err
	}
	return unix.Fadvise(f.fds[buffered], 0, 0, unix.FADV_DONTNEED)
}

// checkHoles walks the file by SEEK_DATA and SEEK_HOLE.
func (f *file) checkHoles() error {
	fd := f.fds[second]
	for at := int64(0); ; {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = unix.Seek(fd, 0, unix.SEEK_END)
		}
		if err != nil {
			return err
		}
		if err := f.checkZero(at, data); err != nil {
			return err
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		at = hole
	}
}

func (f *file) checkZero(from, to int64) error {
	if from >= to {
		return nil
	}
	buf := make([]byte, to-from)
	if _, err := unix.Pread(f.fds[buffered], buf, from); err != nil {
		return err
	}
	for i, b := range buf {
		if b != 0 {
			return fmt.Errorf("%s: SEEK_DATA called %#x to %#x a hole, but there is %#x at %#x", f.path, from, to, b, from+int64(i))
		}
	}
	return nil
}

// pageSize is the unit of mappings.
func pageSize() int { return os.Getpagesize() }
