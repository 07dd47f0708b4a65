// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var sum = strings.Repeat("0", 64)

func valid() Manifest {
	return Manifest{Type: manifestType, Version: Version, Domain: "vm", Method: Offline, Files: []File{
		{Path: LiveXML, Kind: XML, State: Copied, BLAKE3: sum},
		{Path: "disks/top.qcow2", Kind: Disk, Target: "vda", Format: "qcow2", Backing: "disks/base.img", State: Pending},
		{Path: "disks/base.img", Kind: Backing, Target: "vda", Format: "raw", State: Verified, BLAKE3: sum},
	}}
}

// TestRoundTrip: what was written is read, and the file it replaced is never seen half.
func TestRoundTrip(t *testing.T) {
	dest := t.TempDir()
	a, err := Create(dest, "vm")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Update(func(m *Manifest) { *m = valid() }); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteFile(LiveXML, []byte("<domain/>")); err != nil {
		t.Fatal(err)
	}
	if _, err := Resume(dest, "vm"); !errors.Is(err, ErrBusy) {
		t.Errorf("a second writer: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dest, "vm"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second copy: %v", err)
	}
	dirs, err := List(dest)
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%q, %v", dirs, err)
	}
	b, err := Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	m := b.Manifest()
	if m.Whole() || m.Find("disks/top.qcow2").Backing != "disks/base.img" || m.Domain != "vm" {
		t.Errorf("read back: %+v", m)
	}
	if text, err := os.ReadFile(b.Path(LiveXML)); string(text) != "<domain/>" {
		t.Errorf("%q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dest, "vm", "*.new")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestHostile: a manifest is input from strangers.
func TestHostile(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"leaves the directory":    func(m *Manifest) { m.Files[0].Path = "../other/disk.img" },
		"absolute":                func(m *Manifest) { m.Files[0].Path = "/etc/shadow" },
		"dots within":             func(m *Manifest) { m.Files[0].Path = "disks/../../x" },
		"the manifest itself":     func(m *Manifest) { m.Files[0].Path = Name },
		"newline":                 func(m *Manifest) { m.Files[0].Path = "disks/a\nb" },
		"twice":                   func(m *Manifest) { m.Files[0].Path = m.Files[1].Path },
		"file and directory":      func(m *Manifest) { m.Files[0].Path = "disks" },
		"backing outside":         func(m *Manifest) { m.Files[1].Backing = "/var/lib/libvirt/images/base.img" },
		"backing missing":         func(m *Manifest) { m.Files[1].Backing = "disks/none" },
		"data file missing":       func(m *Manifest) { m.Files[1].Data = "disks/none" },
		"loop":                    func(m *Manifest) { m.Files[2].Backing = m.Files[1].Path },
		"on itself":               func(m *Manifest) { m.Files[2].Backing = m.Files[2].Path },
		"negative size":           func(m *Manifest) { m.Files[1].Size = -1 },
		"unknown kind":            func(m *Manifest) { m.Files[1].Kind = "surprise" },
		"unknown state":           func(m *Manifest) { m.Files[1].State = "perhaps" },
		"whole without a digest":  func(m *Manifest) { m.Files[0].BLAKE3 = "" },
		"no domain":               func(m *Manifest) { m.Domain = "" },
		"another kind of file":    func(m *Manifest) { m.Type = "manifest" },
		"more files than can be":  func(m *Manifest) { m.Files = make([]File, maxFiles+1) },
		"version of the future":   func(m *Manifest) { m.Version = Version + 1 },
		"version of nobody":       func(m *Manifest) { m.Version = 0 },
		"empty name of a file":    func(m *Manifest) { m.Files[0].Path = "" },
		"the directory as a file": func(m *Manifest) { m.Files[0].Path = "." },
	} {
		t.Run(name, func(t *testing.T) {
			m := valid()
			change(&m)
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(b); err == nil {
				t.Errorf("accepted: %s", b)
			} else if strings.HasPrefix(name, "version") && !errors.Is(err, ErrVersion) {
				t.Errorf("%v is not ErrVersion", err)
			}
		})
	}
	for _, text := range []string{"", "null", "[]", `{"type":"imgcp-domain"`, "\x00"} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// TestUnknownFields: a later imgcp may say more.
func TestUnknownFields(t *testing.T) {
	b, err := json.Marshal(valid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse([]byte(strings.Replace(string(b), `{`, `{"later":{"x":1},`, 1))); err != nil {
		t.Error(err)
	}
}

// TestDirectoryOfStrangers: names that are valid lead to what is not the copy's.
func TestDirectoryOfStrangers(t *testing.T) {
	dest := t.TempDir()
	a, err := Create(dest, "vm")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	secret := filepath.Join(dest, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{
		"link out":  func(p string) error { return os.Symlink(secret, p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		if err := make(a.Path(name)); err != nil {
			t.Fatal(err)
		}
		if f, err := a.Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	for _, name := range []string{"..", ".", "", "a/b", "../vm", Name} {
		if b, err := Create(dest, name); err == nil {
			b.Close()
			t.Errorf("a domain named %q", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := json.Marshal(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if !filepath.IsLocal(file.Path) {
				t.Fatalf("%q leaves the directory", file.Path)
			}
		}
	})
}
