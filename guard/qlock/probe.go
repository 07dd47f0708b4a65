// SPDX-License-Identifier: Apache-2.0

// Package qlock speaks QEMU's image locking: byte-range locks by which QEMU processes, also on different hosts of a
// cluster file system, agree on who may do what to one image (block/file-posix.c, docs/system/qemu-block-drivers).
//
// For each permission there are two bytes. A process that uses the permission holds a shared lock on byte 100 + n; one
// that does not want others to use it holds a shared lock on byte 200 + n. Before it opens an image it looks whether
// anybody holds the counterpart of what it wants.
package qlock

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Perm is a set of QEMU's block permissions; the bits are its BLK_PERM_* (include/block/block-common.h).
type Perm uint8

// The permissions that QEMU locks. GraphMod was given up in QEMU 7.0; older ones still hold its byte.
const (
	ConsistentRead Perm = 1 << iota
	Write
	WriteUnchanged
	Resize
	GraphMod

	All = ConsistentRead | Write | WriteUnchanged | Resize
)

// bits is the number of permissions that are looked at.
const bits = 5

// Where the bytes begin (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).
const (
	permBase     = 100
	unsharedBase = 200
)

// Held is what others have locked.
type Held struct {
	Used     Perm // in use by somebody
	Unshared Perm // somebody lets nobody else use it
}

// Any says whether there is any lock.
func (h Held) Any() bool { return h.Used|h.Unshared != 0 }

// Probe looks at the locks that others than f's own open file description hold on it. It takes none and needs no more
// than a read-only descriptor. ENOLCK or EINVAL: the file system has no locks.
func Probe(f *os.File) (Held, error) {
	var h Held
	err := control(f, func(fd int) (err error) {
		h, err = probe(fd)
		return err
	})
	if err != nil {
		return Held{}, fmt.Errorf("look at QEMU's image locks on %s: %w", f.Name(), err)
	}
	return h, nil
}

// ProbeFD is Probe for a bare descriptor.
func ProbeFD(fd int) (Held, error) { return probe(fd) }

func probe(fd int) (h Held, err error) {
	// Mostly there is none, and one question tells.
	if any, err := lockedByOthers(fd, permBase, 2*(unsharedBase-permBase)); err != nil || !any {
		return Held{}, err
	}
	for n := range bits {
		for _, side := range []struct {
			base int64
			set  *Perm
		}{{permBase, &h.Used}, {unsharedBase, &h.Unshared}} {
			locked, err := lockedByOthers(fd, side.base+int64(n), 1)
			if err != nil {
				return Held{}, err
			}
			if locked {
				*side.set |= 1 << n
			}
		}
	}
	return h, nil
}

// lockedByOthers asks whether an exclusive lock on a range could be had, which any lock of others prevents. For more
// than one byte it may answer yes because of a lock that is not QEMU's.
func lockedByOthers(fd int, at, n int64) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: n}
	if err := fcntl(fd, unix.F_OFD_GETLK, &l); err != nil {
		return false, err
	}
	return l.Type != unix.F_UNLCK && (n > 1 || isQEMUs(l)), nil
}

// isQEMUs tells QEMU's locks, which never reach beyond the bytes of one base, from a lock on more of the file that some
// other program holds (fcntl(2) on the whole file, say), which happens to cover them.
func isQEMUs(l unix.Flock_t) bool {
	for _, base := range []int64{permBase, unsharedBase} {
		if l.Start >= base && l.Len > 0 && l.Start+l.Len <= base+100 {
			return true
		}
	}
	return false
}

func fcntl(fd, cmd int, l *unix.Flock_t) error {
	for {
		err := unix.FcntlFlock(uintptr(fd), cmd, l)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// control runs call on f's descriptor, without the side effects of f.Fd.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// String names the permissions as QEMU's error messages do.
func (p Perm) String() string {
	names := [bits]string{"consistent read", "write", "write unchanged", "resize", "change children"}
	var set []string
	for n, name := range names {
		if p&(1<<n) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ", ")
}
