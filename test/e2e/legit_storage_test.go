// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// pool makes the directory of images a storage pool, as virt-manager does with /var/lib/libvirt/images.
func pool(t *testing.T, h *harness.Host) string {
	t.Helper()
	const name = "images"
	h.Virsh(t, "pool-define-as", name, "dir", "--target", h.Images).OK(t)
	t.Cleanup(func() {
		h.Virsh(t, "pool-destroy", name)
		h.Virsh(t, "pool-undefine", name).OK(t)
	})
	h.Virsh(t, "pool-build", name).OK(t)
	h.Virsh(t, "pool-start", name).OK(t)
	return name
}

func volumes(t *testing.T, h *harness.Host) {
	p := pool(t, h)
	h.Virsh(t, "vol-create-as", p, "sparse.img", "64M", "--format", "raw").OK(t)
	h.Virsh(t, "vol-create-as", p, "full.img", "4M", "--format", "raw", "--allocation", "4M").OK(t)
	h.Virsh(t, "vol-create-as", p, "disk.qcow2", "64M", "--format", "qcow2", "--prealloc-metadata").OK(t)
	h.Virsh(t, "vol-create-as", p, "overlay.qcow2", "64M", "--format", "qcow2",
		"--backing-vol", "disk.qcow2", "--backing-vol-format", "qcow2").OK(t)
	h.Virsh(t, "pool-refresh", p).OK(t)
	list := h.Virsh(t, "vol-list", p).OK(t)
	for _, name := range []string{"sparse.img", "full.img", "disk.qcow2", "overlay.qcow2"} {
		if !strings.Contains(list, name) {
			t.Errorf("%s is not listed:\n%s", name, list)
		}
		h.Virsh(t, "vol-delete", "--pool", p, name).OK(t)
	}
}

func volumeClone(t *testing.T, h *harness.Host) {
	p := pool(t, h)
	h.Raw(t, "one.img", 8*MiB)
	h.Virsh(t, "pool-refresh", p).OK(t)
	h.Virsh(t, "vol-clone", "--pool", p, "one.img", "two.img").OK(t)
	sameSum(t, h, "one.img", "two.img")
	xml := h.WriteXML(t, "vol.xml", `<volume><name>three.qcow2</name><capacity unit='MiB'>8</capacity>
		<target><format type='qcow2'/></target></volume>`)
	h.Virsh(t, "vol-create-from", p, xml, "one.img", "--inputpool", p).OK(t)
	harness.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", h.Image("one.img"), h.Image("three.qcow2")).OK(t)
}

func sameSum(t *testing.T, h *harness.Host, one, two string) {
	t.Helper()
	if a, b := h.Identify(t, h.Image(one)), h.Identify(t, h.Image(two)); a.Sum != b.Sum {
		t.Errorf("%s and %s differ", one, two)
	}
}

func volumeUpload(t *testing.T, h *harness.Host) {
	p := pool(t, h)
	h.Raw(t, "one.img", 8*MiB)
	h.Virsh(t, "vol-create-as", p, "two.img", "8M", "--format", "raw").OK(t)
	h.Virsh(t, "pool-refresh", p).OK(t)
	file := filepath.Join(h.Out, "download")
	defer os.Remove(file)
	h.Virsh(t, "vol-download", "--pool", p, "one.img", file).OK(t)
	h.Virsh(t, "vol-upload", "--pool", p, "two.img", file).OK(t)
	sameSum(t, h, "one.img", "two.img")
}

func volumeWipe(t *testing.T, h *harness.Host) {
	p := pool(t, h)
	h.Raw(t, "one.img", 8*MiB)
	h.Virsh(t, "pool-refresh", p).OK(t)
	h.Virsh(t, "vol-resize", "--pool", p, "one.img", "16M").OK(t)
	h.Virsh(t, "vol-wipe", "--pool", p, "one.img").OK(t)
	b, err := os.ReadFile(h.Image("one.img"))
	if err != nil || len(b) != 16*MiB || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("resized to 16 MiB and wiped, but: %d bytes, error %v", len(b), err)
	}
	h.Virsh(t, "vol-delete", "--pool", p, "one.img").OK(t)
}

func poolRefresh(t *testing.T, h *harness.Host) {
	p := pool(t, h)
	disk := h.Qcow2(t, "vm.qcow2", 64*MiB)
	g := boot(t, h, "vm", harness.Disk{Target: "vda", File: disk, Format: "qcow2"})
	g.WhileWriting(t, "vda", func() {
		for range 5 {
			h.Virsh(t, "pool-refresh", p).OK(t)
		}
		if info := h.Virsh(t, "vol-info", "--pool", p, "vm.qcow2").OK(t); !strings.Contains(info, "64.00 MiB") {
			t.Errorf("vol-info of a running disk: %s", info)
		}
	})
	g.Finish(t, "vda", disk, "qcow2")
}

func removeAllStorage(t *testing.T, h *harness.Host) {
	pool(t, h)
	disk := h.Qcow2(t, "vm.qcow2", 16*MiB)
	d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk, Format: "qcow2"}}})
	h.Virsh(t, "pool-refresh", "images").OK(t)
	d.Start(t)
	d.Virsh(t, "destroy").OK(t)
	d.Virsh(t, "undefine", "--remove-all-storage").OK(t)
	if _, err := os.Stat(disk); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s should be gone: %v", disk, err)
	}
}
