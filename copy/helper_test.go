package imgcopy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// random is the same in every run.
func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 99)) }

func noise(r *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= len(b); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

// newImage makes a file of random extents: data, holes, and zeroes that were written, of 4 KiB to 3 MiB each.
func newImage(t testing.TB, path string, seed uint64, size int64) string {
	t.Helper()
	r := random(seed)
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
			b = noise(r, n)
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

// dense makes a file without a single block of zeroes.
func dense(t testing.TB, path string, size int64) string {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat(noise(random(5), 64*kib), int(size/(64*kib))), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// sameBytes compares the first file's length.
func sameBytes(t testing.TB, want, got string) {
	t.Helper()
	a, b := open(t, want), open(t, got)
	p, q := make([]byte, mib), make([]byte, mib)
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

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func stat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// onlyHolds fails if dir has other entries than those.
func onlyHolds(t testing.TB, dir string, want ...string) {
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

func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// mustCopy copies with options changed by change.
func mustCopy(t testing.TB, from, to string, change func(*Options)) Result {
	t.Helper()
	r, err := tryCopy(from, to, change)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryCopy(from, to string, change func(*Options)) (Result, error) {
	o := Defaults()
	if change != nil {
		change(&o)
	}
	return Copy(context.Background(), from, to, o)
}

// journalLog keeps what was logged, for tests of warnings.
type journalLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *journalLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *journalLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *journalLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(s string) bool { return strings.Contains(s, text) })
}

// fakeUsers stands for the guard: who uses which inode is written down.
type fakeUsers struct {
	uses      map[uint64][]guard.Use
	permitted bool
}

func (u fakeUsers) InUse(_ context.Context, f *os.File) ([]guard.Use, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return u.uses[st.Ino], err
}

func (u fakeUsers) Permitted(context.Context, *os.File) bool { return u.permitted }

// usedBy is Users where path is a disk of a running domain.
func usedBy(t testing.TB, path string, writable bool) fakeUsers {
	t.Helper()
	return fakeUsers{uses: map[uint64][]guard.Use{stat(t, path).Ino: {{
		Domain: "rhevm", PID: 1234, Target: "vdb", Role: guard.RoleDisk, Writable: writable, Evidence: guard.EvidenceLibvirt,
	}}}}
}

func dirs(t testing.TB) (src, dst string) {
	t.Helper()
	src, dst = filepath.Join(t.TempDir(), "src"), filepath.Join(t.TempDir(), "dst")
	for _, d := range []string{src, dst} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return src, dst
}
