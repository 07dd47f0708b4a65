package viewfs

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestLockedMemoryIsPresent: a buffer has all its pages at the moment that it is made, in memory that the process has
// never used, and in memory that it has given back. It runs in a process of its own, for it locks that one's memory.
func TestLockedMemoryIsPresent(t *testing.T) {
	const marker = "IMGWARD_TEST_LOCK"
	for _, setting := range []string{"", "harddecommit=1"} {
		if os.Getenv(marker) != "" {
			checkPresent(t)
			return
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestLockedMemoryIsPresent$")
		cmd.Env = append(os.Environ(), marker+"=1", "GODEBUG="+setting)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("GODEBUG=%s: %v\n%s", setting, err, out)
		}
	}
}

func checkPresent(t *testing.T) {
	var log strings.Builder
	if mayLock() != nil { // not root, or not of the host's own user namespace
		lockMemory(slog.New(slog.NewTextHandler(&log, nil)))
		runtime.KeepAlive(make([]byte, 64<<20)) // the heap can grow all the same
		if log.Len() == 0 {
			t.Error("memory is not locked, and nothing is said of it")
		}
		return
	}
	lockMemory(slog.New(slog.NewTextHandler(io.MultiWriter(&log, os.Stderr), nil)))
	if log.Len() > 0 {
		t.Fatal(log.String())
	}
	for range 3 {
		var buffers [][]byte
		for range 40 {
			b := make([]byte, maxRequest+2*4096)
			if n := absent(t, b); n > 0 {
				t.Fatalf("%d pages of a new buffer are not there", n)
			}
			buffers = append(buffers, b)
		}
		runtime.KeepAlive(buffers)
		buffers = nil
		debug.FreeOSMemory()
	}
}

// absent counts the pages of b that are not present.
func absent(t *testing.T, b []byte) (n int) {
	t.Helper()
	const page = 4096
	start := (uintptr(unsafe.Pointer(&b[0])) + page - 1) &^ (page - 1)
	size := (uintptr(len(b)) - page) &^ (page - 1)
	vec := make([]byte, size/page)
	if _, _, no := unix.Syscall(unix.SYS_MINCORE, start, size, uintptr(unsafe.Pointer(&vec[0]))); no != 0 {
		t.Fatal(no)
	}
	for _, v := range vec {
		if v&1 == 0 {
			n++
		}
	}
	return n
}
