// SPDX-License-Identifier: Apache-2.0

package testimg

import (
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/source"
	"imgward/guard"
)

// Locks refuses the locks of some inodes.
type Locks struct {
	held           map[uint64]bool
	taken, release *int
}

func (l Locks) take(f *os.File) (func(), error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if l.held[st.Ino] {
		return nil, fmt.Errorf("locked: %w", source.ErrInUse)
	}
	*l.taken++
	return func() { *l.release++ }, nil
}

func (l Locks) Write(f *os.File) (func(), error) { return l.take(f) }
func (l Locks) Read(f *os.File) (func(), error)  { return l.take(f) }

func NewLocks(t *testing.T, held ...string) Locks {
	t.Helper()
	l := Locks{map[uint64]bool{}, new(int), new(int)}
	for _, path := range held {
		l.held[Stat(t, path).Ino] = true
	}
	t.Cleanup(func() {
		if *l.taken != *l.release {
			t.Errorf("%d locks were taken, %d given back", *l.taken, *l.release)
		}
	})
	return l
}

// Users stands for the guard: who uses which inode is written down.
type Users struct {
	Uses      map[uint64][]guard.Use
	Exception bool
}

func (u Users) InUse(_ context.Context, f *os.File) ([]guard.Use, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return u.Uses[st.Ino], err
}

func (u Users) Permitted(context.Context, *os.File) bool { return u.Exception }

// UsedBy is Users where path is a disk of a running domain.
func UsedBy(t testing.TB, path string, writable bool) Users {
	t.Helper()
	return Users{Uses: map[uint64][]guard.Use{Stat(t, path).Ino: {{
		Domain: "rhevm", PID: 1234, Target: "vdb", Role: guard.RoleDisk, Writable: writable, Evidence: guard.EvidenceLibvirt,
	}}}}
}
