// SPDX-License-Identifier: Apache-2.0

// Hammer works on files in a directory until a file named stop appears beside it, and looks at everything that it has
// done: blocks that it wrote are there, with and without O_DIRECT; names, links and locks are as they would be on any file
// system. It is static, so that a guest can run it.
//
//	hammer DIR STOP
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hammer DIR STOP")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "hammer:", err)
		os.Exit(1)
	}
}

// hammer counts what is done.
type hammer struct {
	dir     string
	stop    atomic.Bool
	ops     atomic.Int64
	longest atomic.Int64
}

func run(dir, stop string) error {
	h := &hammer{dir: dir}
	go func() {
		for {
			if _, err := os.Stat(stop); err == nil {
				h.stop.Store(true)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	workers := map[string]func(name string) error{
		"direct":   func(name string) error { return h.blocks(name, unix.O_DIRECT) },
		"buffered": func(name string) error { return h.blocks(name, 0) },
		"append":   h.appends,
		"names":    h.names,
		"locks":    h.locks,
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for kind, work := range workers {
		for i := range 2 {
			wait.Go(func() {
				name := fmt.Sprintf("%s%d", kind, i)
				if err := work(filepath.Join(dir, name)); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("%s: %w", name, err))
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
	fmt.Printf("%d operations, the longest took %v\n", h.ops.Load(), time.Duration(h.longest.Load()).Round(time.Millisecond))
	return errors.Join(failed...)
}

// did does one operation and counts it.
func (h *hammer) did(op func() error) error {
	began := time.Now()
	err := op()
	took := int64(time.Since(began))
	for old := h.longest.Load(); took > old && !h.longest.CompareAndSwap(old, took); old = h.longest.Load() {
	}
	h.ops.Add(1)
	return err
}

const (
	blockSize = 4096
	blockMax  = 256
)

// aligned is memory at a page, as O_DIRECT wants it.
func aligned(size int) []byte {
	b := make([]byte, size+blockSize)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % blockSize)
	return b[skip : skip+size : skip+size]
}

// blocks writes numbered blocks and reads them back. Each number is higher than the one before at the same place: an old
// write that is done again shows.
func (h *hammer) blocks(name string, flags int) error {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|flags, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, blockSize*blockMax); err != nil {
		return err
	}
	var have [blockMax]uint64
	out, in := aligned(8*blockSize), aligned(8*blockSize)
	fill := func(b []byte, at int, number uint64) {
		for i := 0; i < blockSize; i += 16 {
			binary.LittleEndian.PutUint64(b[i:], number)
			binary.LittleEndian.PutUint64(b[i+8:], uint64(at))
		}
	}
	for number := uint64(1); !h.stop.Load(); number++ {
		at, n := rand.IntN(blockMax-8), 1+rand.IntN(8)
		for i := range n {
			fill(out[i*blockSize:], at+i, number)
			have[at+i] = number
		}
		err := h.did(func() error { return whole(unix.Pwrite(fd, out[:n*blockSize], int64(at)*blockSize))(n * blockSize) })
		if err != nil {
			return fmt.Errorf("write block %d: %w", at, err)
		}
		if number%16 == 0 {
			if err := h.did(func() error { return unix.Fdatasync(fd) }); err != nil {
				return fmt.Errorf("fdatasync: %w", err)
			}
		}
		at = rand.IntN(blockMax - 8)
		err = h.did(func() error { return whole(unix.Pread(fd, in[:n*blockSize], int64(at)*blockSize))(n * blockSize) })
		if err != nil {
			return fmt.Errorf("read block %d: %w", at, err)
		}
		for i := range n {
			want := make([]byte, blockSize)
			if have[at+i] > 0 {
				fill(want, at+i, have[at+i])
			}
			if got := in[i*blockSize : (i+1)*blockSize]; !bytes.Equal(got, want) {
				return fmt.Errorf("block %d has number %d, want %d", at+i, binary.LittleEndian.Uint64(got), have[at+i])
			}
		}
	}
	return nil
}

func whole(n int, err error) func(want int) error {
	return func(want int) error {
		if err == nil && n != want {
			return fmt.Errorf("%d bytes of %d", n, want)
		}
		return err
	}
}

// appends writes lines at the end, each once.
func (h *hammer) appends(name string) error {
	var want []byte
	for n := 0; !h.stop.Load(); n++ {
		if n%50 == 0 {
			want = nil
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				return err
			}
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		line := fmt.Appendf(nil, "line %d\n", n)
		err = h.did(func() error { _, err := f.Write(line); return err })
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		want = append(want, line...)
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("the file holds %q, want %q (%v)", got, want, err)
		}
	}
	return nil
}

// names does what must not be done twice.
func (h *hammer) names(dir string) error {
	in := func(s string) string { return filepath.Join(dir, s) }
	steps := []func() error{
		func() error { return os.Mkdir(dir, 0o755) },
		func() error { return os.WriteFile(in("a"), []byte("content"), 0o644) },
		func() error { return os.Link(in("a"), in("b")) },
		func() error { return os.Symlink("a", in("c")) },
		func() error { return os.Rename(in("b"), in("d")) },
		func() error {
			return unix.Renameat2(unix.AT_FDCWD, in("c"), unix.AT_FDCWD, in("d"), unix.RENAME_EXCHANGE)
		},
		func() error { return os.Truncate(in("a"), 3) },
		func() error {
			if b, err := os.ReadFile(in("c")); err != nil || string(b) != "con" {
				return fmt.Errorf("holds %q (%v)", b, err)
			}
			return nil
		},
		func() error { return os.Remove(in("a")) },
		func() error { return os.Remove(in("c")) },
		func() error { return os.Remove(in("d")) },
		func() error { return os.Remove(dir) },
	}
	for !h.stop.Load() {
		for i, step := range steps {
			if err := h.did(step); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
	}
	return nil
}

// locks takes OFD locks through two open files, which must exclude each other, as QEMU's do.
func (h *hammer) locks(name string) error {
	lock := func(fd int, kind int16) error {
		lk := unix.Flock_t{Type: kind, Start: 100, Len: 1}
		return h.did(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk) })
	}
	for !h.stop.Load() {
		var fds [2]int
		for i := range fds {
			var err error
			if fds[i], err = unix.Open(name, unix.O_RDWR|unix.O_CREAT, 0o644); err != nil {
				return err
			}
		}
		if err := lock(fds[0], unix.F_WRLCK); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if err := lock(fds[1], unix.F_WRLCK); err != unix.EAGAIN {
			return fmt.Errorf("lock what is locked: %v, want EAGAIN", err)
		}
		unix.Close(fds[0])
		if err := lock(fds[1], unix.F_WRLCK); err != nil {
			return fmt.Errorf("lock after the other has closed: %w", err)
		}
		unix.Close(fds[1])
	}
	return nil
}
