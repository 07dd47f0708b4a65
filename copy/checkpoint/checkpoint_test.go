// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/rescue"
)

func sample() State {
	return State{
		Source:  Identity{Path: "/a", Dev: 1, Ino: 2, Size: 1 << 30, MTime: 5},
		Target:  Identity{Path: "/b", Rdev: 7, Size: 1 << 31},
		Durable: 64 << 20,
		Bad:     []rescue.Range{{Off: 4096, Len: 8192}},
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing saved: %v, want ErrNotExist", err)
	}
	want := sample()
	for _, durable := range []int64{1 << 20, 64 << 20} { // the second replaces the first
		want.Durable = durable
		if err := want.Save(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want.Type, want.Version = "imgcp-state", version
	if !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v, saved %+v", got, want)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	good, _ := json.Marshal(func() State { s := sample(); s.Type, s.Version = "imgcp-state", version; return s }())
	if _, err := Parse(good); err != nil {
		t.Fatalf("a good state: %v", err)
	}
	for name, change := range map[string]func(*State){
		"other type":      func(s *State) { s.Type = "state" },
		"other version":   func(s *State) { s.Version = 99 },
		"more than all":   func(s *State) { s.Durable = s.Source.Size + 1 },
		"negative":        func(s *State) { s.Durable = -1 },
		"bad outside":     func(s *State) { s.Bad[0].Off = s.Source.Size },
		"bad of nothing":  func(s *State) { s.Bad[0].Len = 0 },
		"bad overflowing": func(s *State) { s.Bad[0].Off = 1<<63 - 1 },
	} {
		s := sample()
		s.Type, s.Version = "imgcp-state", version
		change(&s)
		b, _ := json.Marshal(s)
		if _, err := Parse(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Parse(good[:len(good)/2]); err == nil {
		t.Error("half a file: no error")
	}
}

func TestIdentitySeesChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	identify := func() Identity {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return Identify(path, &st, st.Size)
	}
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	before := identify()
	if err := before.Same(identify()); err != nil {
		t.Errorf("nothing happened: %v", err)
	}
	write("more")
	if before.Same(identify()) == nil {
		t.Error("it grew, and nobody noticed")
	}
	write("two")
	if before.Same(identify()) == nil {
		t.Error("it was written to, and nobody noticed")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write("one")
	if before.Same(identify()) == nil {
		t.Error("it was replaced, and nobody noticed")
	}
}

func FuzzParse(f *testing.F) {
	s := sample()
	s.Type, s.Version = "imgcp-state", version
	b, _ := json.Marshal(s)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err == nil && (s.Durable < 0 || s.Durable > s.Source.Size) {
			t.Fatalf("%d of %d bytes", s.Durable, s.Source.Size)
		}
	})
}
