// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stream reads a directory as getdents64 gives it, with the offset of each entry (d_off), which libc's telldir returns.
type stream struct {
	fd  int
	buf []byte
}

type entry struct {
	name string
	ino  uint64
	kind uint8
	next int64 // where the entry after this one starts
}

func openStream(t *testing.T, dir string, size int) *stream {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &stream{fd: fd, buf: make([]byte, size)}
}

// read returns the next entries, "." and ".." among them; none at the end.
func (s *stream) read(t *testing.T) []entry {
	t.Helper()
	n, err := unix.Getdents(s.fd, s.buf)
	if err != nil {
		t.Fatal(err)
	}
	var out []entry
	for b := s.buf[:n]; len(b) > 0; {
		d := (*unix.Dirent)(unsafe.Pointer(&b[0]))
		name := string(b[unsafe.Offsetof(d.Name):d.Reclen])
		name, _, _ = strings.Cut(name, "\x00")
		out = append(out, entry{name, d.Ino, d.Type, d.Off})
		b = b[d.Reclen:]
	}
	return out
}

func (s *stream) all(t *testing.T) []entry {
	t.Helper()
	var out []entry
	for {
		more := s.read(t)
		if len(more) == 0 {
			return out
		}
		out = append(out, more...)
	}
}

func (s *stream) seek(t *testing.T, to int64) {
	t.Helper()
	if _, err := unix.Seek(s.fd, to, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
}

func makeFiles(t *testing.T, dir, prefix string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s%05d", prefix, i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func namesOf(entries []entry) map[string]int {
	names := map[string]int{}
	for _, e := range entries {
		names[e.name]++
	}
	return names
}
