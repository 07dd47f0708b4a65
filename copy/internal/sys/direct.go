// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Reopen opens f's inode once more with other flags, through /proc/self/fd: it cannot end up at another file, whatever
// happened to the name. The second descriptor has no share in f's OFD locks.
func Reopen(f *os.File, flags int) (*os.File, error) {
	var fd int
	err := onFile("reopen", f, func(old int) (err error) {
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(old), flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// DirectAlign returns the alignment, in bytes, that direct I/O on f needs of offsets, lengths and memory: STATX_DIOALIGN
// where the kernel reports it (6.1 for files and block devices), else 4096, which satisfies every disk seen so far.
// 0 means that f cannot do direct I/O at all.
func DirectAlign(f *os.File) int {
	var st unix.Statx_t
	err := onFile("statx", f, func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	})
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return 4096
	}
	if st.Dio_offset_align == 0 {
		return 0
	}
	return int(max(st.Dio_mem_align, st.Dio_offset_align))
}
