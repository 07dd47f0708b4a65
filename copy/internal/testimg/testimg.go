// SPDX-License-Identifier: Apache-2.0

package testimg

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Random is the same in every run.
func Random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 99)) }

func Noise(r *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= len(b); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

// New makes a file of random extents: data, holes, and zeroes that were written, of 4 KiB to 3 MiB each.
func New(t testing.TB, path string, seed uint64, size int64) string {
	t.Helper()
	r := Random(seed)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; {
		n := int64(1+r.IntN(8)) << (12 + r.IntN(8))
		n = min(n, size-off)
		var b []byte
		switch r.IntN(5) {
		case 0, 1:
			b = Noise(r, n)
		case 2:
			b = make([]byte, n)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		off += n
	}
	return path
}

// Dense makes a file without a single block of zeroes.
func Dense(t testing.TB, path string, size int64) string {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat(Noise(Random(5), 64<<10), int(size/(64<<10))), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// Same compares the first file's length.
func Same(t testing.TB, want, got string) {
	t.Helper()
	a, b := Open(t, want), Open(t, got)
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := 0; ; {
		n, err := a.Read(p)
		if n > 0 {
			if _, err := io.ReadFull(b, q[:n]); err != nil {
				t.Fatalf("%s is shorter than %s, from byte %d: %v", got, want, off, err)
			}
			if !bytes.Equal(p[:n], q[:n]) {
				t.Fatalf("%s and %s differ between bytes %d and %d", want, got, off, off+n)
			}
			off += n
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func Open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func Stat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// OnlyHolds fails if dir has other entries than those.
func OnlyHolds(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Name() != "lost+found" {
			got = append(got, e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func Write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func Content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func Dirs(t testing.TB) (src, dst string) {
	t.Helper()
	src, dst = filepath.Join(t.TempDir(), "src"), filepath.Join(t.TempDir(), "dst")
	for _, d := range []string{src, dst} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return src, dst
}

func Fifo(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/pipe"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Fill writes a file into a pipe, a piece at a time, in the background. Only a reader that has had what it asked for
// (count=) may go before the end.
func Fill(t *testing.T, pipe, from string) {
	t.Helper()
	b := []byte(Content(t, from))
	done := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{w}, strings.NewReader(string(b)), make([]byte, 7777))
			err = errors.Join(err, w.Close())
		}
		done <- err
	}()
	t.Cleanup(func() {
		if r, err := os.OpenFile(pipe, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			r.Close() // a writer that nobody came to read from need not wait any longer
		}
		if err := <-done; err != nil && !errors.Is(err, unix.EPIPE) {
			t.Error(err)
		}
	})
}

func Remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
