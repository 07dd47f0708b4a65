package viewfs

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lockMemory has all memory that requests are read into present, from the moment that it is allocated.
//
// The kernel ends a request with EIO if its reader is killed while it copies the request into a page that is not there:
// it would have to wait for the page, and a process that is being killed does not wait (fuse_dev_do_read, Linux 6.18;
// seen as I/O errors in a guest, in some of 600 kills). Go's heap is not there until it is touched, and go-fuse does not
// touch the megabyte that it reads a request into. Memory that is locked as it is mapped is there (MCL_FUTURE populates),
// and is not swapped out either.
//
// What is mapped already is not locked as a whole: the state memory is far larger than what is used of it. So this is
// called when the state has been mapped, and locks the heap as it is besides. Go gives back what it does not need by
// mapping it anew, which populates it again.
func lockMemory(log *slog.Logger) {
	if err := lockAll(); err != nil {
		log.Info("memory cannot be locked (CAP_IPC_LOCK, LimitMEMLOCK=); buffers are touched instead", "error", err)
		touchBuffers()
	}
}

func lockAll() error {
	if err := mayLock(); err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_FUTURE); err != nil {
		return err
	}
	err := lockHeap()
	for range lockTries {
		if !errors.Is(err, unix.ENOMEM) {
			break
		}
		err = lockHeap()
	}
	return err
}

// lockTries is how often the heap is locked again: while it is, a part may be given back, which stops the kernel from populating
// what follows (ENOMEM). To lock what is locked costs next to nothing.
const lockTries = 4

// mayLock says whether any amount of memory may be locked. MCL_FUTURE is also granted to those who may lock a little, and
// then it is the heap that cannot grow.
func mayLock() error {
	const plenty, mlockOnfault = 1 << 40, 1
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil || lim.Cur >= plenty {
		return err
	}
	more, err := unix.Mmap(-1, 0, int(lim.Cur)+maxRequest, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	defer unix.Munmap(more)
	// Nothing of it is ever touched, so nothing is populated.
	_, _, no := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&more[0])), uintptr(len(more)), mlockOnfault)
	if no != 0 {
		return no
	}
	return nil
}

// lockHeap locks the parts of Go's heap that are mapped already.
func lockHeap() error {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	object := uintptr(unsafe.Pointer(new([4096]byte)))
	for s := bufio.NewScanner(maps); s.Scan(); {
		from, to, ok := heapRange(s.Text(), object)
		if !ok {
			continue
		}
		if _, _, no := unix.Syscall(unix.SYS_MLOCK, from, to-from, 0); no != 0 {
			return fmt.Errorf("mlock: %w", no)
		}
	}
	return nil
}

// heapReach is how far from one object of Go's heap its other parts are looked for. Arenas follow each other; the
// runtime's own tables, which are large and hardly used, are elsewhere.
const heapReach = 4 << 30

// heapRange reads a line of /proc/self/maps; ok is false if it is no part of Go's heap that is in use.
func heapRange(line string, object uintptr) (from, to uintptr, ok bool) {
	var perms string
	if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 || !strings.HasPrefix(perms, "rw-p") {
		return 0, 0, false
	}
	return from, to, to+heapReach > object && from < object+heapReach
}

// touchBuffers is for a worker that may not lock memory: the heap is grown by what the readers' buffers take, touched, and
// given back to the allocator, which uses it first. It may be too little under load.
func touchBuffers() {
	const buffers = 16
	keep := make([][]byte, buffers)
	for i := range keep {
		keep[i] = make([]byte, maxRequest+2*4096)
		for at := 0; at < len(keep[i]); at += 4096 {
			keep[i][at] = 1
		}
	}
	runtime.KeepAlive(keep)
	runtime.GC()
}
