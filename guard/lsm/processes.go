// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"imgward/guard/procfs"
)

// Program declares what processes become that execute this file.
func (l *Layer) Program(path string, class Class) error {
	n, err := l.number(path)
	if err != nil {
		return fmt.Errorf("second layer: %s: %w", path, err)
	}
	return l.Programs.Update(n, class, ebpf.UpdateAny)
}

// number is how the kernel numbers a file. It is opened for that, and the program at file_open looks.
func (l *Layer) number(path string) (n number, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := uint32(unix.Gettid())
	if err := l.Asker.Update(uint32(0), thread, ebpf.UpdateAny); err != nil {
		return n, err
	}
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(f)
		err = l.Answers.LookupAndDelete(thread, &n)
	}
	return n, errors.Join(err, l.Asker.Update(uint32(0), uint32(0), ebpf.UpdateAny))
}

// Process declares what a running process is. One that has ended is no error.
func (l *Layer) Process(pid int, class Class) error {
	stat, err := procfs.FS{Root: "/proc"}.Stat(pid)
	if err != nil || stat.Gone() {
		return nil
	}
	key := uint32(pid)
	var p process
	if err := l.Processes.Lookup(key, &p); err == nil && p.Start == stat.Start {
		class |= p.Class
	}
	if p.Start == stat.Start && p.Class == class {
		return nil
	}
	if err := l.Processes.Update(key, process{Start: stat.Start, Class: class}, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("second layer: process %d: %w", pid, err)
	}
	// It may have ended meanwhile, when nothing was there to be removed.
	if now, err := (procfs.FS{Root: "/proc"}).Stat(pid); err != nil || now.Gone() || now.Start != stat.Start {
		_ = l.Processes.Delete(key)
	}
	return nil
}

// CountOpen counts what the VMMs among the declared processes have had open before the layer was there, or before they were
// declared.
func (l *Layer) CountOpen() error {
	it, err := link.AttachIter(link.IterOptions{Program: l.counting})
	if err != nil {
		return fmt.Errorf("second layer: look at open files: %w", err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("second layer: look at open files: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("second layer: look at open files: %w", err)
	}
	return nil
}
