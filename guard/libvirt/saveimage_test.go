// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/guard/role"
)

const savedXML = "<domain type='kvm'><name>vm</name><uuid>u</uuid><devices><disk type='file' device='disk'>" +
	"<driver type='qcow2'/><source file='/a'/><target dev='vda'/></disk></devices></domain>"

// saveImage writes a header as libvirt does (virQEMUSaveDataWrite): the XML, a cookie behind it, zeros, QEMU's stream.
func saveImage(order binary.AppendByteOrder, magic, xml, cookie string) []byte {
	text := xml + "\x00"
	at := uint32(0)
	if cookie != "" {
		at = uint32(len(text))
		text += cookie + "\x00"
	}
	text += strings.Repeat("\x00", 64<<10)
	b := []byte(magic)
	for _, v := range []uint32{2, uint32(len(text)), 1, 0, at} {
		b = order.AppendUint32(b, v)
	}
	b = append(b, make([]byte, 14*4)...)
	return append(append(b, text...), "QEVM and so on"...)
}

func TestParseSaveImage(t *testing.T) {
	for name, b := range map[string][]byte{
		"as it is":           saveImage(binary.LittleEndian, saveMagic, savedXML, ""),
		"with a cookie":      saveImage(binary.LittleEndian, saveMagic, savedXML, "<cookie/>"),
		"of another machine": saveImage(binary.BigEndian, saveMagic, savedXML, "<cookie/>"),
	} {
		d, _, err := ParseSaveImage(bytes.NewReader(b), "/state", nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Name != "vm" || len(d.Images) != 2 || d.Images[0].Path != "/a" || d.Images[1] != (Image{Path: "/state", Role: role.SavedState, Format: "raw", Writable: true}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	whole := saveImage(binary.LittleEndian, saveMagic, savedXML, "")
	long := bytes.Clone(whole)
	binary.LittleEndian.PutUint32(long[saveLengthAt:], 1<<30)
	for name, tc := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":         {nil, ErrNoSaveImage},
		"short":           {[]byte("Libvirt"), ErrNoSaveImage},
		"a raw disk":      {make([]byte, 4096), ErrNoSaveImage},
		"unfinished":      {saveImage(binary.LittleEndian, partMagic, savedXML, ""), ErrUnfinished},
		"the magic alone": {[]byte(saveMagic), nil},
		"cut off":         {whole[:saveHeader+10], nil},
		"too long":        {long, nil},
		"no domain":       {saveImage(binary.LittleEndian, saveMagic, "<x/>", ""), nil},
	} {
		if _, _, err := ParseSaveImage(bytes.NewReader(tc.b), "/state", nil); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A managed state counts from the moment that it is whole, and until it is removed.
func TestIndexOfSavedStates(t *testing.T) {
	dir := t.TempDir()
	r := &run{t, dir, New(Config{Dirs: []Dir{{Path: dir, Driver: "qemu"}}, Files: SavedStates})}
	path := filepath.Join(dir, "vm.save")
	whole := saveImage(binary.LittleEndian, saveMagic, savedXML, "")
	r.must(os.WriteFile(path, saveImage(binary.LittleEndian, partMagic, savedXML, ""), 0o600))
	r.must(os.WriteFile(filepath.Join(dir, "odd.save"), []byte("odd"), 0o600))
	changes, err := r.index.Refresh(t.Context())
	r.must(err)
	for _, c := range changes {
		if c.Domain != nil {
			t.Errorf("a state that is not whole is %+v", c.Domain)
		}
	}
	if p := r.index.Problems(); len(p) != 1 || filepath.Base(p[0].Path) != "odd.save" || p[0].Blind {
		t.Errorf("the problems are %+v", p)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // as libvirt finishes it, in place
	r.must(err)
	_, err = f.WriteAt(whole[:saveHeader], 0)
	r.must(errors.Join(err, f.Close()))
	r.must(os.Remove(filepath.Join(dir, "odd.save")))
	changes, err = r.index.Refresh(t.Context())
	r.must(err)
	if len(changes) != 2 {
		t.Errorf("the changes are %+v", changes)
	}
	for _, c := range changes {
		if filepath.Base(c.Path) == "vm.save" && (c.Domain == nil || c.Domain.Name != "vm") {
			t.Errorf("a state that is whole is %+v", c)
		}
	}
	r.must(os.Remove(path))
	r.expect("-vm.save")
}

func FuzzSaveImage(f *testing.F) {
	f.Add(saveImage(binary.LittleEndian, saveMagic, savedXML, "<cookie/>"))
	f.Add(saveImage(binary.BigEndian, saveMagic, savedXML, ""))
	f.Add(saveImage(binary.LittleEndian, partMagic, savedXML, ""))
	f.Add([]byte(saveMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, _, err := ParseSaveImage(bytes.NewReader(b), "/state", nil)
		if err == nil && (d.Name == "" || len(d.Images) == 0) {
			t.Errorf("a saved state of nothing: %+v", d)
		}
	})
}

func TestParseSnapshot(t *testing.T) {
	for text, want := range map[string]Snapshot{
		"<domainsnapshot><name>s</name><memory snapshot='external' file='/m'/><domain><name>vm</name></domain></domainsnapshot>": {"s", "/m"},
		"<domainsnapshot><name>s</name><memory snapshot='internal'/></domainsnapshot>":                                           {"s", ""},
		"<domainsnapshot><name>s</name><memory snapshot='no'/></domainsnapshot>":                                                 {"s", ""},
	} {
		if s, err := ParseSnapshot([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %+v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "<x/>", "<domainsnapshot>", "<domainsnapshot/><domainsnapshot/>"} {
		if s, err := ParseSnapshot([]byte(text)); err == nil {
			t.Errorf("%s is %+v", text, s)
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	f.Add([]byte("<domainsnapshot><name>s</name><memory snapshot='external' file='/m'/></domainsnapshot>"))
	f.Add([]byte("<domainsnapshot><memory file='/m'/>"))
	f.Fuzz(func(_ *testing.T, text []byte) { _, _ = ParseSnapshot(text) })
}
