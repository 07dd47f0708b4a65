// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// limit is what the medium takes: the source read and as much written elsewhere, both past the page cache and with
// eight requests in flight, into blocks that are reserved, by writers who wait for no reader. No copy can be faster.
func limit(src string, size int64) tool {
	return tool{name: "(the medium's limit)", limit: func(dst string) (float64, error) {
		in, err := os.OpenFile(src, os.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			return 0, err
		}
		defer in.Close()
		out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_DIRECT, 0o600)
		if err != nil {
			return 0, err
		}
		defer out.Close()
		begun := time.Now()
		if err := unix.Fallocate(int(out.Fd()), 0, 0, size); err != nil {
			return 0, err
		}
		err = errors.Join(both(size, in.ReadAt, out.WriteAt), out.Sync())
		return time.Since(begun).Seconds(), err
	}}
}

// both calls read and write for every MiB.
func both(size int64, calls ...func([]byte, int64) (int, error)) error {
	const inFlight, hugePage = 8, 2 * mib
	mapped, err := unix.Mmap(-1, 0, hugePage+len(calls)*inFlight*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(mapped)
	memory := mapped[-uintptr(unsafe.Pointer(&mapped[0]))%hugePage:]
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	var g errgroup.Group
	for i, call := range calls {
		var next atomic.Int64
		for k := range inFlight {
			buf := memory[(i*inFlight+k)*mib:][:mib]
			buf[0] = 1
			g.Go(func() error {
				for {
					off := next.Add(mib) - mib
					if off >= size {
						return nil
					}
					if _, err := call(buf[:min(mib, size-off)], off); err != nil {
						return err
					}
				}
			})
		}
	}
	return g.Wait()
}
