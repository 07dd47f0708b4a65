// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffers is memory for direct I/O, outside the Go heap: the collector neither scans nor moves it.
type Buffers struct {
	mapped []byte
	whole  []byte // the part of it that begins where a huge page can
	size   int
}

const hugePage = 2 << 20

// NewBuffers maps count buffers of size bytes, which is a multiple of the page size. They lie side by side in huge pages
// if the kernel has some: one request is then one run of memory to a disk instead of hundreds of single pages, which is
// more than many controllers take in one request (measured on virtio-blk: reads of 1 MiB twice as fast).
func NewBuffers(count, size int) (*Buffers, error) {
	length := (count*size + hugePage - 1) / hugePage * hugePage // one buffer has a huge page to itself: one fault instead of hundreds
	mapped, err := unix.Mmap(-1, 0, length+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	skip := -uintptr(unsafe.Pointer(&mapped[0])) % hugePage
	b := &Buffers{mapped: mapped, whole: mapped[skip:][:length], size: size}
	_ = unix.Madvise(b.whole, unix.MADV_HUGEPAGE) // a kernel without them says EINVAL
	return b, nil
}

// Get returns the i-th buffer.
func (b *Buffers) Get(i int) []byte { return b.whole[i*b.size:][:b.size:b.size] }

// Free unmaps all of them.
func (b *Buffers) Free() { _ = unix.Munmap(b.mapped) }
