// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// lockRounds is how often each is tried: a release that is late is so by microseconds, and seldom.
const lockRounds = 500

// TestLocksAtClose: the locks of an open file are gone when close(2) of its last descriptor returns, and do not pass to
// the next file that is opened. QEMU closes one descriptor of an image and looks for locks through another at once.
func TestLocksAtClose(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"OFD locks", ofdLocksAtClose},
		{"flock", flockAtClose},
		{"of the next open file", noInheritedLocks},
	}
	atPlaces(t, func(t *testing.T, p *place) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) { test.run(t, filepath.Join(freshDir(t, p), "image")) })
		}
	})
}

func openLocks(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// lockByte takes a shared OFD lock of one byte.
func lockByte(t *testing.T, fd int, at int64) {
	t.Helper()
	lk := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk); err != nil {
		t.Fatal(err)
	}
}

// byteLocked says whether anybody else has a byte locked.
func byteLocked(t *testing.T, fd int, at int64) bool {
	t.Helper()
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lk); err != nil {
		t.Fatal(err)
	}
	return lk.Type != unix.F_UNLCK
}

func ofdLocksAtClose(t *testing.T, image string) {
	for round := range lockRounds {
		a, b := openLocks(t, image), openLocks(t, image)
		lockByte(t, a, 101)
		lockByte(t, b, 101)
		if !byteLocked(t, b, 101) {
			t.Fatal("an open file's lock is not seen through another")
		}
		unix.Close(a)
		late := byteLocked(t, b, 101)
		unix.Close(b)
		if late {
			t.Fatalf("round %d: the byte is still locked after close", round)
		}
	}
}

func flockAtClose(t *testing.T, image string) {
	for round := range lockRounds {
		a, b := openLocks(t, image), openLocks(t, image)
		if err := unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatalf("round %d: the last round's lock is still there: %v", round, err)
		}
		if err := unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Fatalf("two exclusive locks: %v", err)
		}
		unix.Close(a)
		err := unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB)
		unix.Close(b)
		if err != nil {
			t.Fatalf("round %d: still locked after close: %v", round, err)
		}
	}
}

// noInheritedLocks: the kernel names an open file to a FUSE server by its address, which the next one may have.
func noInheritedLocks(t *testing.T, image string) {
	other := openLocks(t, image)
	defer unix.Close(other)
	for round := range lockRounds {
		a := openLocks(t, image)
		lockByte(t, a, 101)
		unix.Close(a)
		b := openLocks(t, image)
		lockByte(t, b, 102)
		inherited := byteLocked(t, other, 101)
		unix.Close(b)
		if inherited {
			t.Fatalf("round %d: a new open file has the last one's lock", round)
		}
	}
}
