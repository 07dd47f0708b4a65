// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sysCachestat is cachestat(2), Linux 6.5; the number is the same on every architecture.
const sysCachestat = 451

// cachestatRange and cachestatResult mirror struct cachestat_range and struct cachestat of linux/mman.h.
type cachestatRange struct{ off, len uint64 }
type cachestatResult struct{ cached, dirty, writeback, evicted, recentlyEvicted uint64 }

// Cached returns how many bytes of [off, off+n) are in the page cache; ok is false before Linux 6.5.
func Cached(f *os.File, off, n int64) (bytes int64, ok bool) {
	r := cachestatRange{uint64(off), uint64(n)}
	var res cachestatResult
	err := onFile("cachestat", f, func(fd int) error {
		_, _, e := unix.Syscall6(sysCachestat, uintptr(fd), uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&res)), 0, 0, 0)
		if e != 0 {
			return e
		}
		return nil
	})
	return int64(res.cached) * int64(os.Getpagesize()), err == nil
}

// Evict drops the clean cached pages of [off, off+n). It is advice: errors do not matter.
func Evict(f *os.File, off, n int64) {
	_ = onFile("fadvise", f, func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED) })
}

// StartWriteback starts writing the dirty pages of [off, off+n) and does not wait. It makes nothing durable.
func StartWriteback(f *os.File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// FinishWriteback waits until [off, off+n) has left the page cache for the device. It makes nothing durable: neither
// the metadata nor the device's own cache is flushed.
func FinishWriteback(f *os.File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func syncRange(f *os.File, off, n int64, flags int) error {
	return onFile("sync range of", f, func(fd int) error { return unix.SyncFileRange(fd, off, n, flags) })
}
