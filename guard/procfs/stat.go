// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// FS is one proc file system, normally {"/proc"}. Its pids are those of the pid namespace that it was mounted in.
type FS struct {
	Root string
	// Host is put before absolute paths of executables: see guard.Config.HostRoot. Not empty, it also says that this
	// process is in a mount namespace of its own.
	Host string
}

// Stat is what /proc/ID/stat says of a process or thread; see proc_pid_stat(5).
type Stat struct {
	ID      int
	Comm    string
	State   byte // 'R', 'S', 'Z', …
	PPID    int
	TTY     uint64 // device number of the controlling terminal as unix.Mkdev makes it; 0: none
	Threads int
	Start   uint64 // field 22: clock ticks between boot and the start of the process
}

// Gone says that nothing of the process runs any more: it is a zombie that waits for its parent, with no thread left.
// A zombie leader with live threads is not gone, and its descriptors are still open.
func (s Stat) Gone() bool {
	return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1
}

// Stat reads /proc/ID/stat of a process or thread. ENOENT or ESRCH means that there is none.
func (f FS) Stat(id int) (Stat, error) {
	var buf [1024]byte // the line is 52 short fields and a comm of at most 64 bytes
	n, err := f.read(id, "stat", buf[:])
	if err != nil {
		return Stat{}, err
	}
	return parseStat(buf[:n])
}

// parseStat takes the comm to end at the LAST parenthesis: a process may call itself "a) R 1".
func parseStat(line []byte) (Stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return Stat{}, errors.New("procfs: stat line without a command name")
	}
	fields := bytes.Fields(line[end+1:])
	if len(fields) < 20 {
		return Stat{}, errors.New("procfs: stat line is too short")
	}
	var num [20]int64
	for i := 1; i < len(num); i++ { // fields[0] is the state letter; fields[i] is field i+3 of the man page
		// An unsigned field may exceed an int64; none of those that are used here does.
		num[i], _ = strconv.ParseInt(string(fields[i]), 10, 64)
	}
	id, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	if err != nil {
		return Stat{}, fmt.Errorf("procfs: stat line without a pid: %w", err)
	}
	return Stat{
		ID: id, Comm: string(line[open+1 : end]), State: fields[0][0], PPID: int(num[1]),
		TTY: ttyDevice(uint32(num[4])), Threads: int(num[17]), Start: uint64(num[19]),
	}, nil
}

// ttyDevice decodes tty_nr, which the kernel encodes by new_encode_dev: minor bits 31–20 and 7–0, major bits 19–8.
func ttyDevice(nr uint32) uint64 {
	if nr == 0 {
		return 0
	}
	return unix.Mkdev(nr>>8&0xfff, nr&0xff|nr>>12&0xfff00)
}

// read reads the start of /proc/ID/NAME into buf without the allocations of os.ReadFile: this stands in the path of
// every guarded operation.
func (f FS) read(id int, name string, buf []byte) (int, error) {
	path := f.path(id, name)
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return 0, fmt.Errorf("procfs: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil { // ESRCH: the process ended after the open
		return 0, fmt.Errorf("procfs: read %s: %w", path, err)
	}
	return n, nil
}

func (f FS) path(id int, name string) string {
	return f.Root + "/" + strconv.Itoa(id) + "/" + name
}

// retry repeats a system call that a signal has interrupted (the Go runtime preempts with SIGURG).
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
