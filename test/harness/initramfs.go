// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// guestModules are loaded by the agent in this order. Debian's cloud kernel has all of them as modules.
var guestModules = []string{
	"virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev",
	"virtio/virtio_pci", "block/virtio_blk", "char/virtio_console",
	"scsi/scsi_common", "scsi/scsi_mod", "cdrom/cdrom", "scsi/sr_mod", "scsi/virtio_scsi",
	"input/evdev", "acpi/button",
}

// prepareGuest puts kernel and initramfs of the test guests into the sandbox. They are copies: libvirt changes their
// owner while a guest runs.
func prepareGuest(root string) error {
	cache := os.Getenv("IMGWARD_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/imgward-test"
	}
	if err := copyFile(cache+"/kernel/vmlinux", filepath.Join(root, kernelFile), 0o644); err != nil {
		return fmt.Errorf("no guest kernel: %w (make deps fetches it)", err)
	}
	agent := filepath.Join(root, "guest/agent")
	if err := goBuild(agent, "imgward/test/guest/agent"); err != nil {
		return err
	}
	archive := &cpio{}
	archive.dir("dev")
	archive.dir("modules")
	for i, m := range guestModules {
		from := cache + "/kernel/modules/kernel/drivers/" + m + ".ko"
		archive.file(fmt.Sprintf("modules/%02d-%s.ko", i, filepath.Base(m)), from, 0o644)
	}
	archive.file("init", agent, 0o755)
	return archive.write(filepath.Join(root, initrdFile))
}

// cpio is an archive in the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	buf bytes.Buffer
	ino int
	err error
}

func (c *cpio) dir(name string) { c.entry(name, 0o040755, nil) }

func (c *cpio) file(name, from string, perm uint32) {
	b, err := os.ReadFile(from)
	c.err = errors.Join(c.err, err)
	c.entry(name, 0o100000|perm, b)
}

func (c *cpio) entry(name string, mode uint32, data []byte) {
	c.ino++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.buf.WriteString(name + "\x00")
	c.pad()
	c.buf.Write(data)
	c.pad()
}

// pad aligns to four bytes, as the format wants after names and data.
func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

func (c *cpio) write(path string) error {
	c.entry("TRAILER!!!", 0, nil)
	if c.err != nil {
		return c.err
	}
	return os.WriteFile(path, c.buf.Bytes(), 0o644)
}
