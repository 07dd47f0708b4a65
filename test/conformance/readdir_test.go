// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReaddir is about directory streams: POSIX readdir, telldir, seekdir, rewinddir.
func TestReaddir(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"every name once", everyNameOnce},
		{"types and inode numbers", entryTypes},
		{"seekdir to every place", seekEverywhere},
		{"rewinddir sees changes", rewind},
		{"unlink while reading", unlinkWhileReading},
		{"create while reading", createWhileReading},
		{"rename while reading", renameWhileReading},
		{"two streams at once", twoStreams},
		{"a removed directory", removedDirectory},
		{"dup shares the offset", dupSharesOffset},
		{"EINVAL for a small buffer", smallBuffer},
	}
	atPlaces(t, func(t *testing.T, p *place) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) { test.run(t, freshDir(t, p)) })
		}
	})
}

const manyFiles = 10000

func everyNameOnce(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, manyFiles)
	for _, size := range []int{300, 4096, 1 << 20} {
		names := namesOf(openStream(t, dir, size).all(t))
		if len(names) != manyFiles+2 {
			t.Errorf("buffer of %d: %d names, want %d", size, len(names), manyFiles+2)
		}
		for name, n := range names {
			if n != 1 {
				t.Errorf("buffer of %d: %s came %d times", size, name, n)
			}
		}
	}
}

func entryTypes(t *testing.T, dir string) {
	makers := map[uint8]func(string) error{
		unix.DT_REG:  func(p string) error { return os.WriteFile(p, nil, 0o644) },
		unix.DT_DIR:  func(p string) error { return os.Mkdir(p, 0o755) },
		unix.DT_FIFO: func(p string) error { return unix.Mkfifo(p, 0o644) },
		unix.DT_LNK:  func(p string) error { return os.Symlink("x", p) },
		unix.DT_CHR:  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) },
		unix.DT_SOCK: func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) },
	}
	for kind, make := range makers {
		if err := make(filepath.Join(dir, fmt.Sprint(kind))); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: the second time the kernel may answer from what the first one brought.
	for range 2 {
		for _, e := range openStream(t, dir, 4096).all(t) {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, e.name), &st); err != nil {
				t.Fatal(err)
			}
			if uint32(e.kind)<<12 != st.Mode&unix.S_IFMT {
				t.Errorf("%s: d_type %d, mode %o", e.name, e.kind, st.Mode)
			}
			if e.ino != st.Ino {
				t.Errorf("%s: d_ino %d, st_ino %d", e.name, e.ino, st.Ino)
			}
		}
	}
}

// seekEverywhere goes back to the place after each entry and expects what followed there the first time.
func seekEverywhere(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 500)
	s := openStream(t, dir, 1024)
	first := s.all(t)
	for _, i := range []int{0, 1, 2, 3, 499, 250, 100, 101, 7, 500} {
		s.seek(t, first[i].next)
		for j, e := range s.read(t) {
			if want := first[i+1+j]; e != want {
				t.Fatalf("after entry %d: %+v, want %+v", i, e, want)
			}
		}
	}
	s.seek(t, first[len(first)-1].next)
	if more := s.read(t); len(more) != 0 {
		t.Errorf("after the last entry: %+v", more)
	}
}

func rewind(t *testing.T, dir string) {
	makeFiles(t, dir, "a", 0, 10)
	s := openStream(t, dir, 4096)
	s.all(t)
	makeFiles(t, dir, "b", 0, 5)
	if err := os.Remove(filepath.Join(dir, "a00003")); err != nil {
		t.Fatal(err)
	}
	s.seek(t, 0)
	names := namesOf(s.all(t))
	if len(names) != 10-1+5+2 || names["a00003"] != 0 || names["b00004"] != 1 {
		t.Errorf("after rewinddir: %v", names)
	}
}

// unlinkWhileReading is what rm -r does: every name that was there when the stream was opened and is not removed comes
// once, and no removed one stays.
func unlinkWhileReading(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 3000)
	s := openStream(t, dir, 2048)
	seen := 0
	for {
		entries := s.read(t)
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.name == "." || e.name == ".." {
				continue
			}
			seen++
			if err := os.Remove(filepath.Join(dir, e.name)); err != nil {
				t.Fatalf("%s came, but %v", e.name, err)
			}
		}
	}
	if left := openStream(t, dir, 4096).all(t); seen != 3000 || len(left) != 2 {
		t.Errorf("%d names came, %d are left", seen, len(left)-2)
	}
}

func createWhileReading(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 1000)
	s := openStream(t, dir, 2048)
	entries := s.read(t)
	makeFiles(t, dir, "new", 0, 1000)
	names := namesOf(append(entries, s.all(t)...))
	for i := range 1000 {
		if n := names[fmt.Sprintf("f%05d", i)]; n != 1 {
			t.Errorf("f%05d came %d times", i, n)
		}
		if n := names[fmt.Sprintf("new%05d", i)]; n > 1 {
			t.Errorf("new%05d came %d times", i, n)
		}
	}
}

func renameWhileReading(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 1000)
	s := openStream(t, dir, 2048)
	entries := s.read(t)
	for i := range 500 {
		old := filepath.Join(dir, fmt.Sprintf("f%05d", 2*i))
		if err := os.Rename(old, filepath.Join(dir, fmt.Sprintf("g%05d", 2*i))); err != nil {
			t.Fatal(err)
		}
	}
	names := namesOf(append(entries, s.all(t)...))
	for i := range 500 {
		if n := names[fmt.Sprintf("f%05d", 2*i+1)]; n != 1 {
			t.Errorf("f%05d was not renamed and came %d times", 2*i+1, n)
		}
	}
	if got := namesOf(openStream(t, dir, 4096).all(t)); len(got) != 1002 {
		t.Errorf("%d names in the end", len(got)-2)
	}
}

func twoStreams(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 1000)
	a, b := openStream(t, dir, 1024), openStream(t, dir, 3000)
	var fromA, fromB []entry
	for {
		x, y := a.read(t), b.read(t)
		fromA, fromB = append(fromA, x...), append(fromB, y...)
		if len(x) == 0 && len(y) == 0 {
			break
		}
	}
	if len(namesOf(fromA)) != 1002 || len(namesOf(fromB)) != 1002 {
		t.Errorf("%d and %d names, want 1002", len(fromA), len(fromB))
	}
}

func removedDirectory(t *testing.T, dir string) {
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStream(t, sub, 4096)
	if err := os.Remove(sub); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Getdents(s.fd, s.buf)
	if err != unix.ENOENT && (err != nil || n > 2*32) {
		t.Errorf("getdents: %d bytes, %v", n, err)
	}
}

func dupSharesOffset(t *testing.T, dir string) {
	makeFiles(t, dir, "f", 0, 300)
	a := openStream(t, dir, 1024)
	fd, err := unix.Dup(a.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := &stream{fd: fd, buf: make([]byte, 1024)}
	got := namesOf(append(a.read(t), append(b.read(t), a.all(t)...)...))
	if len(got) != 302 {
		t.Errorf("%d names, want 302", len(got))
	}
}

func smallBuffer(t *testing.T, dir string) {
	s := openStream(t, dir, 8)
	if _, err := unix.Getdents(s.fd, s.buf); err != unix.EINVAL {
		t.Errorf("got %v, want EINVAL", err)
	}
}
