// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMmap is about files in memory.
func TestMmap(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"reads see writes", mappedReads},
		{"shared writes reach the file", sharedWrites},
		{"private writes do not", privateWrites},
		{"two mappings are one memory", twoMappings},
		{"a shared write moves mtime and ctime", mappedWriteMovesTimes},
		{"the mapping outlives close and unlink", mappingOutlives},
		{"truncation and growth", mappedTruncate},
		{"EACCES and ENODEV", mapErrors},
		{"a program runs from it", runProgram},
	}
	atPlaces(t, func(t *testing.T, p *place) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) { test.run(t, freshDir(t, p)) })
		}
	})
}

const mapped = 64 << 10

func newMapped(t *testing.T, dir string, flags int) (*os.File, []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt(bytes.Repeat([]byte("x"), mapped), 0); err != nil {
		t.Fatal(err)
	}
	return f, mapFile(t, f, unix.PROT_READ|unix.PROT_WRITE, flags)
}

func mapFile(t *testing.T, f *os.File, prot, flags int) []byte {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, mapped, prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	return m
}

func mustRead(t *testing.T, f *os.File, at int64, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
		t.Errorf("at %d: %q, %v; want %q", at, got, err, want)
	}
}

func mappedReads(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	if m[0] != 'x' || m[mapped-1] != 'x' {
		t.Errorf("mapped %q and %q", m[0], m[mapped-1])
	}
	other, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.WriteAt([]byte("hello"), 5000); err != nil {
		t.Fatal(err)
	}
	if got := string(m[5000:5005]); got != "hello" {
		t.Errorf("the mapping has %q after a write of hello", got)
	}
}

func sharedWrites(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	copy(m[4090:], "across pages")
	mustRead(t, f, 4090, "across pages")
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustRead(t, other, 4090, "across pages")
}

func privateWrites(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_PRIVATE)
	copy(m, "private")
	mustRead(t, f, 0, "xxxxxxx")
}

func twoMappings(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	g, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	r := mapFile(t, g, unix.PROT_READ, unix.MAP_SHARED)
	copy(m[8192:], "seen")
	if got := string(r[8192:8196]); got != "seen" {
		t.Errorf("the other mapping has %q", got)
	}
}

// mappedWriteMovesTimes: POSIX mmap: the times are marked between the write and the next msync.
func mappedWriteMovesTimes(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	var before, after unix.Stat_t
	if err := unix.Stat(f.Name(), &before); err != nil {
		t.Fatal(err)
	}
	if err := waitPast(time.Unix(before.Ctim.Unix())); err != nil {
		t.Fatal(err)
	}
	m[100] = 'y'
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(f.Name(), &after); err != nil {
		t.Fatal(err)
	}
	if after.Mtim == before.Mtim || after.Ctim == before.Ctim {
		t.Errorf("mtime %v, ctime %v have not moved", after.Mtim, after.Ctim)
	}
}

func mappingOutlives(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	keep, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	f.Close()
	if err := os.Remove(keep.Name()); err != nil {
		t.Fatal(err)
	}
	copy(m[10:], "still here")
	mustRead(t, keep, 10, "still here")
}

func mappedTruncate(t *testing.T, dir string) {
	f, m := newMapped(t, dir, unix.MAP_SHARED)
	copy(m[4000:], bytes.Repeat([]byte("y"), 200))
	if err := f.Truncate(4050); err != nil {
		t.Fatal(err)
	}
	if m[4049] != 'y' || m[4051] != 0 {
		t.Errorf("after the cut: %q and %q", m[4049], m[4051])
	}
	if err := f.Truncate(mapped); err != nil {
		t.Fatal(err)
	}
	if m[4060] != 0 || m[5000] != 0 {
		t.Error("what was cut off has come back")
	}
	m[5000] = 'z'
	mustRead(t, f, 4999, "\x00z\x00")
}

func mapErrors(t *testing.T, dir string) {
	f, _ := newMapped(t, dir, unix.MAP_SHARED)
	r, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := unix.Mmap(int(r.Fd()), 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); err != unix.EACCES {
		t.Errorf("a writable mapping of a read-only descriptor: %v", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := unix.Mmap(int(d.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err != unix.ENODEV {
		t.Errorf("a mapping of a directory: %v", err)
	}
}
