// SPDX-License-Identifier: Apache-2.0

// Package smallfiles works on many small files at once, as builds, mail stores and fsstress do: everything that a program
// does with names and little data, from many workers. Each knows what its files must hold, and says so if they do not.
package smallfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Run has workers do so many operations each, in directories of their own below dir and in one that they share. It returns how many were
// done, and what was not as it should be.
func Run(ctx context.Context, dir string, workers, operations int) (done int, err error) {
	shared := filepath.Join(dir, "shared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return 0, err
	}
	counts, errs := make([]int, workers), make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			w := &worker{dir: filepath.Join(dir, strconv.Itoa(i)), shared: shared, rnd: rand.New(rand.NewPCG(uint64(i), 1)), files: map[string]*file{}}
			counts[i], errs[i] = w.run(ctx, operations)
		})
	}
	all.Wait()
	for _, n := range counts {
		done += n
	}
	return done, errors.Join(errs...)
}

// worker has a directory of its own, of which it knows everything.
type worker struct {
	dir, shared string
	rnd         *rand.Rand
	files       map[string]*file // by name; several names of one file share it
}

type file struct {
	data []byte
	mode uint32
	xatt string
}

const (
	names   = 24
	largest = 16 << 10
)

func (w *worker) run(ctx context.Context, operations int) (done int, err error) {
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		return 0, err
	}
	for ; done < operations && ctx.Err() == nil; done++ {
		if err := w.step(); err != nil {
			return done, err
		}
	}
	return done, w.verify()
}

func (w *worker) step() error {
	name := "f" + strconv.Itoa(w.rnd.IntN(names))
	f := w.files[name]
	if f == nil {
		return w.make(name)
	}
	switch w.rnd.IntN(16) {
	case 0:
		return w.remove(name)
	case 1:
		return w.rename(name)
	case 2, 3:
		return w.link(name)
	case 4, 5:
		return w.write(name, f)
	case 6:
		return w.truncate(name, f)
	case 7:
		return w.punch(name, f)
	case 8:
		return w.chmod(name, f)
	case 9:
		return w.xattr(name, f)
	case 10:
		return w.list()
	case 11:
		return w.directory()
	case 12:
		return w.meet()
	case 13:
		return w.sync(name)
	case 14:
		return w.mapped(name, f)
	default:
		return w.read(name, f)
	}
}

func (w *worker) at(name string) string { return filepath.Join(w.dir, name) }

func (w *worker) bytes() []byte {
	b := make([]byte, w.rnd.IntN(largest)+1)
	for i := range b {
		b[i] = byte(w.rnd.Uint32())
	}
	return b
}

func (w *worker) make(name string) error {
	data := w.bytes()
	w.files[name] = &file{data: data, mode: 0o644}
	return os.WriteFile(w.at(name), data, 0o644)
}

func (w *worker) remove(name string) error {
	delete(w.files, name)
	return os.Remove(w.at(name))
}

func (w *worker) rename(name string) error {
	to := "f" + strconv.Itoa(w.rnd.IntN(names))
	if err := os.Rename(w.at(name), w.at(to)); err != nil {
		return err
	}
	if w.files[to] != w.files[name] { // two names of one file stay both
		w.files[to] = w.files[name]
		delete(w.files, name)
	}
	return nil
}

func (w *worker) link(name string) error {
	to := "f" + strconv.Itoa(w.rnd.IntN(names))
	err := os.Link(w.at(name), w.at(to))
	if w.files[to] != nil {
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link over %s: %w, want EEXIST", w.at(to), err)
		}
		return nil
	}
	w.files[to] = w.files[name]
	return err
}

func (w *worker) write(name string, f *file) error {
	fd, err := os.OpenFile(w.at(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	data, at := w.bytes(), w.rnd.IntN(largest)
	if _, err := fd.WriteAt(data, int64(at)); err != nil {
		return err
	}
	f.grow(at + len(data))
	copy(f.data[at:], data)
	return nil
}

func (f *file) grow(size int) {
	if more := size - len(f.data); more > 0 {
		f.data = append(f.data, make([]byte, more)...)
	}
}

func (w *worker) truncate(name string, f *file) error {
	size := w.rnd.IntN(largest)
	f.grow(size)
	f.data = f.data[:size:size]
	return os.Truncate(w.at(name), int64(size))
}

func (w *worker) punch(name string, f *file) error {
	fd, err := os.OpenFile(w.at(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	at, length := w.rnd.IntN(largest), w.rnd.IntN(largest)+1
	err = unix.Fallocate(int(fd.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(length))
	if err == unix.EOPNOTSUPP { // not every file system has it
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: fd.Name(), Err: err}
	}
	if at < len(f.data) {
		clear(f.data[at:min(at+length, len(f.data))])
	}
	return nil
}

func (w *worker) chmod(name string, f *file) error {
	f.mode = 0o600 | uint32(w.rnd.IntN(0o100))
	return os.Chmod(w.at(name), os.FileMode(f.mode))
}

func (w *worker) xattr(name string, f *file) error {
	f.xatt = strconv.Itoa(w.rnd.Int())
	return unix.Setxattr(w.at(name), xattrName, []byte(f.xatt), 0)
}

const xattrName = "user.smallfiles"

func (w *worker) list() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	if len(entries) != len(w.files) {
		return fmt.Errorf("%s lists %d files, want %d", w.dir, len(entries), len(w.files))
	}
	for _, e := range entries {
		if w.files[e.Name()] == nil {
			return fmt.Errorf("%s lists %s, which is not there", w.dir, e.Name())
		}
	}
	return nil
}

func (w *worker) directory() error {
	sub, link := w.at("d"), w.at("d/l")
	if err := os.Mkdir(sub, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../f0", link); err != nil {
		return err
	}
	if to, err := os.Readlink(link); err != nil || to != "../f0" {
		return fmt.Errorf("%s leads to %q: %w", link, to, err)
	}
	return errors.Join(os.Remove(link), os.Remove(sub))
}

// meet does something in the directory that all share: what, nobody can know.
func (w *worker) meet() error {
	one := filepath.Join(w.shared, strconv.Itoa(w.rnd.IntN(names)))
	two := filepath.Join(w.shared, strconv.Itoa(w.rnd.IntN(names)))
	var err error
	switch w.rnd.IntN(5) {
	case 0, 1:
		err = os.WriteFile(one, []byte(one), 0o644)
	case 2:
		err = os.Rename(one, two)
	case 3:
		err = os.Link(one, two)
	case 4:
		err = os.Remove(one)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (w *worker) sync(name string) error {
	fd, err := os.Open(w.at(name))
	if err != nil {
		return err
	}
	return errors.Join(fd.Sync(), fd.Close())
}

// mapped stores through a shared mapping.
func (w *worker) mapped(name string, f *file) error {
	if len(f.data) == 0 {
		return nil
	}
	fd, err := os.OpenFile(w.at(name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	mem, err := unix.Mmap(int(fd.Fd()), 0, len(f.data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return &os.PathError{Op: "mmap", Path: fd.Name(), Err: err}
	}
	at := w.rnd.IntN(len(f.data))
	if err := increment(&mem[at]); err != nil {
		return errors.Join(fmt.Errorf("store through a mapping of %s: %w", w.at(name), err), unix.Munmap(mem))
	}
	f.data[at]++
	return unix.Munmap(mem)
}

// increment turns SIGBUS into an error: a file system may have mapped a file without the page to be there (passthrough_ll,
// 3.14.0).
func increment(b *byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault, is := recover().(runtime.Error); is {
			err = fault
		}
	}()
	*b++
	return nil
}

func (w *worker) read(name string, f *file) error {
	got, err := os.ReadFile(w.at(name))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, f.data) {
		at := 0
		for at < min(len(got), len(f.data)) && got[at] == f.data[at] {
			at++
		}
		return fmt.Errorf("%s has %d bytes, want %d; the first difference is at %d", w.at(name), len(got), len(f.data), at)
	}
	return nil
}

// verify looks at everything.
func (w *worker) verify() error {
	if err := w.list(); err != nil {
		return err
	}
	for name, f := range w.files {
		if err := w.read(name, f); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(w.at(name), &st); err != nil {
			return &os.PathError{Op: "stat", Path: w.at(name), Err: err}
		}
		links := 0
		for _, other := range w.files {
			if other == f {
				links++
			}
		}
		if mode := st.Mode & 0o7777; mode != f.mode || int(st.Nlink) != links {
			return fmt.Errorf("%s has mode %#o and %d links, want %#o and %d", w.at(name), mode, st.Nlink, f.mode, links)
		}
		var buf [64]byte
		n, err := unix.Getxattr(w.at(name), xattrName, buf[:])
		if f.xatt == "" && err == unix.ENODATA {
			continue
		}
		if err != nil || string(buf[:n]) != f.xatt {
			return fmt.Errorf("%s has the attribute %q (%w), want %q", w.at(name), buf[:max(n, 0)], err, f.xatt)
		}
	}
	return nil
}
