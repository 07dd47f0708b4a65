// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
)

type pools map[string]string

func (p pools) VolumePath(_ context.Context, pool, volume string) (string, error) {
	if path := p[pool+"/"+volume]; path != "" {
		return path, nil
	}
	return "", errors.New("no such volume")
}

const described = `<domain type='kvm'><name>vm</name><uuid>12345678-1234-1234-1234-123456789abc</uuid>
<os><nvram>/nvram/vm.fd</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/i/a &amp; b.qcow2.imgcp-1.qcow2' index='3'/>
 <backingStore type='file' index='2'><format type='qcow2'/><source file='/i/a &amp; b.qcow2'/><backingStore/></backingStore>
 <target dev='vda' bus='virtio'/></disk>
<disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/x'/><target dev='vdb'/><shareable/></disk>
<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdc'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='pool/image'/><target dev='vdd'/></disk>
<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
<tpm><backend type='emulator' version='2.0'><source type='dir' path='TPMDIR'/></backend></tpm>
<interface type='network'><source network='default'/></interface></devices></domain>`

func TestDescribe(t *testing.T) {
	d, err := describe(t.Context(), described, pools{"p/v": "/pool/v.img"})
	if err != nil {
		t.Fatal(err)
	}
	paths := ""
	for i := range d.Disks {
		paths += d.Disks[i].Target.Dev + "=" + d.Disks[i].path + " "
	}
	if want := "vda=/i/a & b.qcow2.imgcp-1.qcow2 vdb=/dev/vg/x vdc=/pool/v.img vdd= sda= "; paths != want {
		t.Errorf("%s, want %s", paths, want)
	}
	if o := d.omissions(false); len(o) != 1 || o[0].Source != "rbd:pool/image" {
		t.Errorf("omitted: %v", o)
	}
	if o := d.omissions(true); len(o) != 0 { // QEMU reads it
		t.Errorf("omitted: %v", o)
	}
	if d.NVRAM.path() != "/nvram/vm.fd" || len(d.networks()) != 1 || d.pools()[0] != "p" {
		t.Errorf("%+v", d)
	}
	if _, err := describe(t.Context(), described, pools{}); err == nil {
		t.Error("a volume that cannot be found is no disk that may be left out")
	}
}

// TestWithoutOverlay: the definition of a domain that stopped while it was frozen names its own image again, and nothing else
// in it changes.
func TestWithoutOverlay(t *testing.T) {
	o := &overlay{Target: "vda", Image: "/i/a & b.qcow2", Format: "qcow2", File: "/i/a & b.qcow2.imgcp-1.qcow2"}
	got, err := withoutOverlay(described, o)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(described, "<disk type='file' device='disk'>")
	_, after, _ := strings.Cut(described, "bus='virtio'/></disk>")
	if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
		t.Errorf("more than the disk has changed:\n%s", got)
	}
	d, err := describe(t.Context(), got, pools{"p/v": "/pool/v.img"})
	if err != nil {
		t.Fatal(err)
	}
	if d.Disks[0].path != o.Image || d.Disks[0].Driver.Type != "qcow2" || strings.Contains(got, "imgcp-") || strings.Contains(got, "backingStore") {
		t.Errorf("the disk is not on its own image, or has a backing chain still:\n%s", got)
	}
	if again, err := withoutOverlay(got, o); err != nil || again != got {
		t.Errorf("a second time it changes again (%v):\n%s", err, again)
	}
}

// TestTPM: every file of swtpm's state, in its directories; its lock file is not.
func TestTPM(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tpm2/tpm2-00.permall", "tpm2/.lock"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("state"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := describe(t.Context(), strings.ReplaceAll(described, "TPMDIR", dir), pools{"p/v": "/pool/v.img"})
	if err != nil {
		t.Fatal(err)
	}
	v := newInventory()
	if err := v.tpm(d); err != nil {
		t.Fatal(err)
	}
	if len(v.files) != 1 || v.files[0].Path != "tpm/tpm2/tpm2-00.permall" || v.files[0].Kind != archive.TPM {
		t.Errorf("%+v", v.files)
	}
}

// TestSameName: two images of one name, from two directories, do not meet in the copy; one image by two names is there once.
func TestSameName(t *testing.T) {
	dir := t.TempDir()
	v := newInventory()
	var names []string
	for _, sub := range []string{"a", "b"} {
		path := filepath.Join(dir, sub, "disk.img")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(sub), 0o600); err != nil {
			t.Fatal(err)
		}
		_, name, err := v.add("disks", archive.File{Kind: archive.Disk, Source: path})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	link := filepath.Join(dir, "link.img")
	if err := os.Link(filepath.Join(dir, "a/disk.img"), link); err != nil {
		t.Fatal(err)
	}
	_, name, err := v.add("disks", archive.File{Kind: archive.Backing, Source: link})
	if err != nil || name != names[0] || names[0] == names[1] || len(v.files) != 2 {
		t.Errorf("%q, %q, %v", names, name, err)
	}
}
