// SPDX-License-Identifier: Apache-2.0

package fsx

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned gives memory that O_DIRECT accepts.
func aligned(size int) []byte {
	buf := make([]byte, size+block)
	skip := int(-uintptr(unsafe.Pointer(&buf[0])) & (block - 1))
	return buf[skip : skip+size : skip+size]
}

// mapping maps the pages around a range and returns the range. It ends at the end of the file: beyond it there is
// nothing to be read.
func (f *file) mapping(o operation) (pages, inside []byte, err error) {
	size, err := f.size()
	if err != nil || o.offset >= size {
		return nil, nil, err
	}
	length := min(o.length, size-o.offset)
	start := o.offset &^ (pageSize() - 1)
	pages, err = unix.Mmap(f.fds[mapped], int64(start), o.offset-start+length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return pages, pages[o.offset-start:], nil
}

func (f *file) readMapped(o operation) ([]byte, error) {
	pages, inside, err := f.mapping(o)
	if pages == nil {
		return nil, err
	}
	defer unix.Munmap(pages)
	return append([]byte(nil), inside...), nil
}

// writeMapped writes through memory. Half of the time, by the fill, it leaves the pages dirty for the kernel to write
// back whenever it likes.
func (f *file) writeMapped(o operation) error {
	pages, inside, err := f.mapping(o)
	if pages == nil {
		return err
	}
	defer unix.Munmap(pages)
	copy(inside, o.data())
	if o.fill%2 == 0 {
		return nil
	}
	return unix.Msync(pages, unix.MS_SYNC)
}
