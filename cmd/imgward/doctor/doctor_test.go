// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/cmd/imgward/control"
	"imgward/fs/mounttable"
	"imgward/guard"
	"imgward/guard/second"
)

const table = `
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /var/lib/images rw - xfs /dev/sdb1 rw
22 21 0:50 / /var/lib/images rw - fuse.imgward /var/lib/images rw
23 20 8:2 / /mnt/all rw - xfs /dev/sdb1 rw
24 20 8:2 /lab /srv/lab rw - xfs /dev/sdb1 rw
25 20 8:2 / /mnt/covered rw - xfs /dev/sdb1 rw
26 25 0:60 / /mnt/covered rw - tmpfs none rw
27 20 8:3 / /other rw - xfs /dev/sdc1 rw
28 20 8:2 / /mnt/backup ro - xfs /dev/sdb1 rw
29 20 8:2 / /mnt/peer rw - xfs /dev/sdb1 rw
30 29 0:50 / /mnt/peer rw - fuse.imgward /var/lib/images rw
31 20 8:2 / /hidden/all rw - xfs /dev/sdb1 rw
32 20 0:61 / /hidden rw - tmpfs none rw
`

func TestOtherWays(t *testing.T) {
	mounts, err := mounttable.Parse(strings.NewReader(strings.TrimPrefix(table, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	got := otherWays(mounts, View{View: control.View{Mountpoint: "/var/lib/images", Backing: "/var/lib/images"}})
	if want := []string{"/mnt/all", "/srv/lab"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A directory of the root file system, which has no other mount.
	if got := otherWays(mounts, View{View: control.View{Mountpoint: "/srv/x", Backing: "/srv/x"}}); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		path string
		use  guard.Use
		want Level
	}{
		{"/srv/a", guard.Use{Role: guard.RoleDisk, Domain: "x", Evidence: guard.EvidenceLibvirt}, Problem},
		{"/srv/a", guard.Use{Role: guard.RoleUnknown, PID: 1, Evidence: guard.EvidenceProcess}, Problem},
		{"/boot/vmlinuz", guard.Use{Role: guard.RoleKernel, Domain: "x", Evidence: guard.EvidenceLibvirt}, ""},
		{"/usr/share/OVMF/CODE.fd", guard.Use{Role: guard.RoleLoader, Domain: "x", Evidence: guard.EvidenceLibvirt}, ""},
		{"/usr/share/OVMF/VARS.fd", guard.Use{Role: guard.RoleNVRAM, Domain: "x", Evidence: guard.EvidenceLibvirt}, Note},
		{"/usr/share/seabios/bios.bin", guard.Use{Role: guard.RoleUnknown, PID: 1, Evidence: guard.EvidenceProcess}, ""},
		{"/var/tmp/vl.xyz (deleted)", guard.Use{Role: guard.RoleUnknown, PID: 1, Evidence: guard.EvidenceProcess}, ""},
		{"/proc/version", guard.Use{Role: guard.RoleUnknown, PID: 1, Evidence: guard.EvidenceProcess}, ""},
	} {
		f := elsewhere(&control.Image{Path: c.path, Uses: []guard.Use{c.use}})
		if (f == nil) != (c.want == "") || f != nil && f.Level != c.want {
			t.Errorf("%s: %+v, want %q", c.path, f, c.want)
		}
	}
	if f := elsewhere(&control.Image{Path: "/dev/sdz", Block: true, Uses: []guard.Use{{Domain: "x"}}}); f == nil || f.Level != Note {
		t.Errorf("a block device: %+v", f)
	}
}

func TestExported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "exports")
	text := "# none\n/srv/a\\040b host(rw)\n\"/srv/c d\" *(ro)\n\n/plain/\t10.0.0.0/8(rw)\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := exported(f), []string{"/srv/a b", "/srv/c d", "/plain"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSecondLayer: what is off is named with the reason, and each device with what protects it.
func TestSecondLayer(t *testing.T) {
	hold := func(layer string, ino uint64, path, left string) control.HoldLine {
		return control.HoldLine{Layer: layer, Hold: second.Hold{ID: guard.ID{Dev: guard.BlockDevice, Ino: ino}, Path: path, Left: left}}
	}
	layer := func(name, reason string) control.LayerLine {
		return control.LayerLine{Status: second.Status{Layer: name, Active: reason == "", Reason: reason}}
	}
	for _, c := range []struct {
		name string
		host Second
		want map[string]Level
	}{
		{"all is on", Second{
			Layers: []control.LayerLine{layer("claims", ""), layer("lsm", "")},
			Holds:  []control.HoldLine{hold("claims", 1, "/dev/dm-0", ""), hold("lsm", 1, "/dev/mapper/vm", ""), hold("claims", 2, "/dev/sdb", "it is part of md0"), hold("lsm", 2, "/dev/sdb", "")},
		}, map[string]Level{"/dev/dm-0 is protected by claims, lsm": OK, "/dev/sdb, which a VM uses, is protected by lsm alone: claims: it is part of md0": Note}},
		{"claims alone", Second{
			Layers: []control.LayerLine{layer("claims", ""), layer("lsm", "BPF is not among the active security modules: boot with lsm=yama,bpf")},
			Holds:  []control.HoldLine{hold("claims", 1, "/dev/dm-0", ""), hold("claims", 2, "/dev/sdb", "it is mounted on /x")},
		}, map[string]Level{
			"boot with lsm=yama,bpf": Note, "/dev/dm-0, which a VM uses, is protected by a claim": Note,
			"/dev/sdb, which a VM uses, is not protected by the second layer: claims: it is mounted on /x": Note,
		}},
	} {
		found := (&Host{Second: &c.host}).second(t.Context())
		for what, level := range c.want {
			if !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.What, what) && f.Level == level }) {
				t.Errorf("%s: nothing says %q (%s): %+v", c.name, what, level, found)
			}
		}
	}
}
