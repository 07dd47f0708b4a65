// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/role"
)

// The files in testdata were written by libvirt 9.0.
func TestParseRealFiles(t *testing.T) {
	vda := []Image{
		{"/tmp/gt/top.qcow2", "vda", role.Disk, "qcow2", true, false},
		{"/tmp/gt/base.qcow2", "vda", role.Backing, "qcow2", false, false},
	}
	raw := Image{"/tmp/gt/raw.img", "vdb", role.Disk, "raw", true, false}
	for name, want := range map[string][]Image{
		"chain":     append(vda[:2:2], raw),
		"blockcopy": append(vda[:2:2], raw, Image{"/tmp/gt/copy.img", "vdb", role.Mirror, "raw", true, false}),
		"backup-pull": append(vda[:2:2], raw,
			Image{"/tmp/gt/scratch.qcow2", "vda", role.Scratch, "qcow2", true, false},  // as a block job
			Image{"/tmp/gt/scratch.qcow2", "vda", role.Scratch, "qcow2", true, false}), // as a backup
		"volume-transient": append(vda[:2:2], raw,
			Image{"/pool/vol.img", "vdc", role.Disk, "raw", true, false},
			Image{"/tmp/gt/new.qcow2.TRANSIENT-gvol", "vdd", role.Disk, "qcow2", true, false},
			Image{"/tmp/gt/new.qcow2", "vdd", role.Backing, "qcow2", false, false}),
	} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
		if err != nil {
			t.Fatal(err)
		}
		d, notes, err := Parse(text, func(pool, volume string) (string, bool) { return "/pool/" + volume, pool == "gtpool" })
		if err != nil || len(notes) > 0 {
			t.Fatalf("%s: %v %v", name, err, notes)
		}
		if diff := cmp.Diff(want, d.Images); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if d.PID < 10000 || !strings.HasPrefix(d.Name, "g") || len(d.UUID) != 36 || d.State != "running" || !d.Running() {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// inDomain puts elements into a running domain.
func inDomain(elements string) []byte {
	return []byte("<domstatus state='running' pid='7'><domain><name>d</name>" + elements + "</domain></domstatus>")
}

// elements is what a domain may have, and what is found in it.
func elements() map[string]element {
	return map[string]element{
		"empty tray":         {"<devices><disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk></devices>", nil},
		"source without any": {"<devices><disk type='file' device='cdrom'><source startupPolicy='optional'/><target dev='sda'/></disk></devices>", nil},
		"medium": {"<devices><disk type='file' device='cdrom'><source file='/a.iso'/><target dev='sda'/></disk></devices>",
			[]Image{{"/a.iso", "sda", role.CDROM, "raw", false, false}}},
		"floppy": {"<devices><disk type='file' device='floppy'><source file='/a.flp'/><target dev='fda'/></disk></devices>",
			[]Image{{"/a.flp", "fda", role.Floppy, "raw", true, false}}},
		"block device": {"<devices><disk type='block'><driver type='raw'/><source dev='/dev/vg/lv'/><target dev='vda'/></disk></devices>",
			[]Image{{"/dev/vg/lv", "vda", role.Disk, "raw", true, false}}},
		"directory": {"<devices><disk type='dir'><source dir='/d'/><target dev='vda'/></disk></devices>",
			[]Image{{"/d", "vda", role.Disk, "raw", true, false}}},
		"network": {"<devices><disk type='network'><source protocol='nbd' name='x'><host name='h'/></source><target dev='vda'/></disk></devices>", nil},
		"read-only": {"<devices><disk type='file'><source file='/a'/><target dev='vda'/><readonly/></disk></devices>",
			[]Image{{"/a", "vda", role.Disk, "raw", false, false}}},
		"data store": {"<devices><disk type='file'><driver type='qcow2'/><source file='/a'><dataStore type='file'><format type='raw'/><source file='/a.data'/></dataStore></source><target dev='vda'/></disk></devices>",
			[]Image{{"/a", "vda", role.Disk, "qcow2", true, false}, {"/a.data", "vda", role.DataFile, "raw", true, false}}},
		"three deep": {"<devices><disk type='file'><driver type='qcow2'/><source file='/a'/><target dev='vda'/>" +
			"<backingStore type='file'><format type='qcow2'/><source file='/b'/><backingStore type='network'><format type='qcow2'/><source protocol='nbd'/>" +
			"<backingStore type='file'><format type='raw'/><source file='/c'/><backingStore/></backingStore></backingStore></backingStore></disk></devices>",
			[]Image{{"/a", "vda", role.Disk, "qcow2", true, false}, {"/b", "vda", role.Backing, "qcow2", false, false}, {"/c", "vda", role.Backing, "raw", false, false}}},
		"old mirror": {"<devices><disk type='file'><source file='/a'/><target dev='vda'/><mirror file='/m' format='qcow2' job='copy'/></disk></devices>",
			[]Image{{"/a", "vda", role.Disk, "raw", true, false}, {"/m", "vda", role.Mirror, "qcow2", true, false}}},
		"firmware": {"<os><loader readonly='yes' type='pflash'>/code.fd</loader><nvram template='/t.fd'> /vars.fd </nvram></os>",
			[]Image{{"/code.fd", "", role.Loader, "raw", false, false}, {"/vars.fd", "", role.NVRAM, "raw", true, false}}},
		"nvram with a source": {"<os><nvram type='file' format='qcow2'><source file='/vars.qcow2'/></nvram></os>",
			[]Image{{"/vars.qcow2", "", role.NVRAM, "qcow2", true, false}}},
		"kernel": {"<os><kernel>/vmlinuz</kernel><initrd>/initrd</initrd><dtb>/dtb</dtb></os>",
			[]Image{{"/vmlinuz", "", role.Kernel, "raw", false, false}, {"/initrd", "", role.Initrd, "raw", false, false}, {"/dtb", "", role.DTB, "raw", false, false}}},
		"nvdimm": {"<devices><memory model='nvdimm'><source><path>/nvdimm</path></source></memory></devices>",
			[]Image{{"/nvdimm", "", role.Memory, "raw", true, false}}},
		"container": {"<devices><filesystem type='file'><driver type='loop' format='qcow2'/><source file='/root.img'/><target dir='/'/></filesystem></devices>",
			[]Image{{"/root.img", "/", role.FS, "qcow2", true, false}}},
		"escaped": {"<devices><disk type='file'><source file='/a &amp; &quot;b&quot; &#xfc;'/><target dev='vda'/></disk></devices>",
			[]Image{{`/a & "b" ü`, "vda", role.Disk, "raw", true, false}}},
	}
}

type element struct {
	xml  string
	want []Image
}

func TestParseElements(t *testing.T) {
	for name, tc := range elements() {
		d, notes, err := Parse(inDomain(tc.xml), nil)
		if err != nil || len(notes) > 0 {
			t.Errorf("%s: %v %v", name, err, notes)
			continue
		}
		if diff := cmp.Diff(tc.want, d.Images); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseUnknownVolume(t *testing.T) {
	text := inDomain("<devices><disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk></devices>")
	d, notes, err := Parse(text, func(string, string) (string, bool) { return "", false })
	if err != nil || len(d.Images) != 0 || len(notes) != 1 || !strings.Contains(notes[0], "volume v of storage pool p") {
		t.Errorf("%+v, %v, %v", d, notes, err)
	}
}

func TestParseDefinition(t *testing.T) {
	const text = "<!-- WARNING: DO NOT EDIT -->\n<domain type='kvm'><name>d</name><uuid>u</uuid><devices><disk type='file'><source file='/a'/><target dev='vda'/></disk></devices></domain>"
	d, _, err := ParseDefinition([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Domain{Name: "d", UUID: "u", Images: []Image{{"/a", "vda", role.Disk, "raw", true, false}}}, d); diff != "" {
		t.Error(diff)
	}
	if _, _, err := ParseDefinition(inDomain(""), nil); err == nil {
		t.Error("a status file is taken for a definition")
	}
	if _, _, err := Parse([]byte(text), nil); err == nil {
		t.Error("a definition is taken for a status file")
	}
}

func TestParseBadInput(t *testing.T) {
	good := string(inDomain("<devices/>"))
	for name, text := range map[string]string{
		"nothing":         "",
		"binary":          "\x00\x01\xff",
		"cut off":         good[:len(good)-3],
		"another root":    "<pool><name>x</name></pool>",
		"no name":         "<domstatus><domain/></domstatus>",
		"pid is no pid":   "<domstatus pid='x'><domain><name>d</name></domain></domstatus>",
		"huge pid":        "<domstatus pid='99999999999999999999'><domain><name>d</name></domain></domstatus>",
		"an entity":       "<!DOCTYPE x [<!ENTITY a 'b'>]><domstatus><domain><name>&a;</name></domain></domstatus>",
		"deep":            strings.Repeat("<domstatus>", 1000),
		"deep chain":      string(inDomain("<devices><disk>" + strings.Repeat("<backingStore>", 100000) + "</disk></devices>")),
		"half the caps":   "<domstatus><qemuCaps></domstatus></qemuCaps><domain><name>d</name></domain></domstatus></a>",
		"too large":       "<domstatus>" + strings.Repeat(" ", MaxFile) + "</domstatus>",
		"another charset": "<?xml version='1.0' encoding='UTF-16'?><domstatus/>",
	} {
		if d, _, err := Parse([]byte(text), nil); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestStates(t *testing.T) {
	for state, want := range map[string]bool{
		"running": true, "paused": true, "blocked": true, "shutdown": true, "pmsuspended": true, "": true, "novel": true,
		"shutoff": false, "crashed": false, "nostate": false,
	} {
		if got := (&Domain{State: state}).Running(); got != want {
			t.Errorf("state %q counts as running: %v", state, got)
		}
	}
}

// FuzzParse: no text makes the parser panic or run away, and the images that it finds have a path.
func FuzzParse(f *testing.F) {
	// Small seeds: the fuzzer spends its time on making interesting inputs smaller.
	for _, e := range elements() {
		f.Add(inDomain(e.xml))
	}
	f.Add([]byte("<domstatus><blockjobs><blockjob type='copy'><disk dst='vda'/><store format='raw'><source file='/a'/></store></blockjob></blockjobs>" +
		"<backups><disk name='vda'><driver type='qcow2'/><scratch file='/b'/></disk></backups><qemuCaps></qemuCaps><domain><name>d</name></domain></domstatus>"))
	f.Add([]byte("<domain><name>d</name></domain>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, parse := range []func([]byte, Volumes) (*Domain, []string, error){Parse, ParseDefinition} {
			d, _, err := parse(text, nil)
			if err != nil {
				continue
			}
			if d.Name == "" || d.PID < 0 || d.Blind {
				t.Errorf("%+v", d)
			}
			for _, i := range d.Images {
				if i.Path == "" || i.Format == "" || i.Role == "" {
					t.Errorf("%+v", i)
				}
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/chain.xml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, _, err := Parse(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
