package sys

import "golang.org/x/sys/unix"

// Buffer returns n bytes of page-aligned memory outside the Go heap, as direct I/O needs it; the collector neither
// scans nor moves it. FreeBuffer gives it back.
func Buffer(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

// FreeBuffer unmaps what Buffer returned.
func FreeBuffer(b []byte) error { return unix.Munmap(b) }
