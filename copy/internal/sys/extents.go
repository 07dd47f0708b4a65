// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"
	"unsafe"
)

// fiemap mirrors struct fiemap of linux/fiemap.h, without extents.
type fiemap struct {
	start, length        uint64
	flags, mapped, count uint32
	_                    uint32
}

const iocFiemap = 0xc020660b // FS_IOC_FIEMAP: _IOWR('f', 11, struct fiemap)

// Extents counts the extents of a file (FIEMAP); Unsupported(err) where the file system does not say.
func Extents(f *os.File) (int, error) {
	m := fiemap{length: ^uint64(0)}
	err := onFile("count extents of", f, func(fd int) error { return ioctl(fd, iocFiemap, unsafe.Pointer(&m)) })
	return int(m.mapped), err
}
