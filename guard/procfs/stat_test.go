// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const tail = " S 10 11 12 34817 13 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4711 1 2 3"
	for _, comm := range []string{"dd", "a) R 1 (b", "", "))((", "new\nline"} {
		s, err := parseStat([]byte("123 (" + comm + ")" + tail))
		if err != nil {
			t.Fatalf("%q: %v", comm, err)
		}
		want := Stat{ID: 123, Comm: comm, State: 'S', PPID: 10, TTY: unix.Mkdev(136, 1), Threads: 3, Start: 4711}
		if s != want {
			t.Errorf("%q: %+v, want %+v", comm, s, want)
		}
	}
	for _, bad := range []string{"", "1", "1 (x)", "1 (x) S 1", "(x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", ") (", "x (y)" + tail} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken for %+v", bad, s)
		}
	}
}

func TestTTYDevice(t *testing.T) {
	for nr, want := range map[uint32]uint64{
		0: 0, 34816: unix.Mkdev(136, 0), 1025: unix.Mkdev(4, 1), 136<<8 | 44 | 1<<20: unix.Mkdev(136, 300),
	} {
		if got := ttyDevice(nr); got != want {
			t.Errorf("tty_nr %d is device %x, want %x", nr, got, want)
		}
	}
}

func TestStartedAt(t *testing.T) {
	s, err := FS{Root: "/proc"}.Stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(StartedAt(s.Start)); age < -time.Second || age > time.Hour {
		t.Errorf("this process is %v old", age)
	}
}

func TestAlive(t *testing.T) {
	fs := FS{Root: "/proc"}
	s, err := fs.Stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !fs.Alive(os.Getpid(), s.Start) {
		t.Error("this process is not alive")
	}
	if fs.Alive(os.Getpid(), s.Start+1) {
		t.Error("a process of another start time is taken for this one")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("1 (x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"))
	f.Add([]byte("Tgid:\t1\nPPid:\t2\nUid:\t0\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err == nil && !bytes.Contains(text, []byte("("+s.Comm+")")) {
			t.Errorf("%q is said to be called %q", text, s.Comm)
		}
		_, _ = parseStatus(text)
	})
}
