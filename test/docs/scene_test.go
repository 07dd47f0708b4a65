// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// images is the directory that the pages speak of. In the sandbox it is a file system of our own, with room for a large disk.
const images = "/var/lib/libvirt/images"

// scene is the host that the pages speak of: domain rhevm runs with vm-disk1.qcow2 and vm-disk2.img; vm-old.img is idle.
type scene struct {
	host *harness.Host
}

func newScene(t *testing.T) *scene {
	h := harness.NewFiles(t)
	disk := filepath.Join(h.Dir, "disk.ext4")
	harness.Sh(t, `set -e; truncate -s 100G "$DISK"; mkfs.ext4 -q -m 0 -N 4096 "$DISK"; mount -o loop,noinit_itable "$DISK" "$IMAGES"
		mount --make-private "$IMAGES"; mount --make-shared "$IMAGES" # the sandbox shows its parent in a second place
		mount -t tmpfs tmpfs /srv; mkdir /srv/backup /srv/images /srv/next; mount -t tmpfs tmpfs /mnt
		mkdir "$DIR/etc"; mount -t tmpfs tmpfs "$DIR/etc"; mkdir "$DIR/etc/up" "$DIR/etc/work"
		mount -t overlay -o "lowerdir=/etc,upperdir=$DIR/etc/up,workdir=$DIR/etc/work" etc /etc
		mount --bind "$IMGWARD_SANDBOX_ROOT/etc/libvirt" /etc/libvirt; mkdir -p /etc/imgward`,
		"DISK="+disk, "IMAGES="+images, "DIR="+h.Dir).OK(t)
	t.Cleanup(func() {
		harness.Sh(t, `umount /etc/libvirt /etc "$DIR/etc" /mnt /srv "$IMAGES"`, "DIR="+h.Dir, "IMAGES="+images).OK(t)
	})
	h.Images = images
	h.StartLibvirt(t)
	h.Run(t, harness.Spec{Name: "rhevm", Disks: []harness.Disk{
		{Target: "vda", File: h.Qcow2(t, "vm-disk1.qcow2", harness.MiB), Format: "qcow2"},
		{Target: "vdb", File: h.Raw(t, "vm-disk2.img", harness.MiB)},
	}})
	h.Raw(t, "vm-old.img", harness.MiB)
	harness.Run(t, "cp", harness.Imgward(), "/srv/next/imgward").OK(t)
	t.Cleanup(func() { harness.Run(t, harness.Imgward(), "guard", "stop") }) // if a page has started one
	return &scene{host: h}
}

// begin prepares for a page: a new view, without exceptions.
func (s *scene) begin(t *testing.T) {
	s.imgward(t, "mount", images).OK(t)
	t.Cleanup(func() { s.mounted(t, false) })
}

// prepare prepares for a block: where it mounts the view itself, there is none before.
func (s *scene) prepare(t *testing.T, b block) {
	s.mounted(t, !strings.Contains(strings.Join(b.lines, "\n"), "imgward mount"))
}

// mounted sees to it that the view is there, or that it is not.
func (s *scene) mounted(t *testing.T, wanted bool) {
	if is := harness.Run(t, "findmnt", "-t", "fuse.imgward", images).Exit == 0; is != wanted {
		s.imgward(t, map[bool]string{true: "mount", false: "umount"}[wanted], images).OK(t)
	}
}

func (s *scene) imgward(t *testing.T, args ...string) harness.Result {
	return harness.Run(t, append([]string{harness.Imgward()}, args...)...)
}

// path is PATH with the programs under test before all others.
func path() string { return "PATH=" + filepath.Dir(harness.Imgward()) + ":" + os.Getenv("PATH") }
