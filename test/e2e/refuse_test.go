// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
)

// victim is an image of the running domain "vm", and how the domain uses it.
type victim struct {
	name   string
	target string
	format string
	// sampled: by other names only the sample of commands is tried, to save time.
	sampled bool
}

var victims = []victim{
	{"disk.img", "vda", "raw", false},
	{"overlay.qcow2", "vdb", "qcow2", true},
	{"backing.img", "vdb", "raw", false},
	{"cd.iso", "sda", "raw", true},
}

// sample has one command for each kind of operation.
var sample = []string{"dd", "dd conv=notrunc", "rm -f", "mv onto", "mv beside", "cp -f", "fallocate -p", "losetup",
	"qemu-img convert", "python O_RDONLY|O_TRUNC", "RENAME_EXCHANGE", "truncate -s"}

// alias is another way to the same image.
type alias struct {
	name string
	// path turns the image's own path into the alias.
	path func(s *scene, image string) string
	// prefix runs a command elsewhere.
	prefix []string
}

var ownName = alias{"own name", func(_ *scene, image string) string { return image }, nil}

var aliases = []alias{
	{"hard link", func(_ *scene, image string) string { return image + ".link" }, nil},
	{"symlink", func(s *scene, image string) string { return filepath.Join(s.h.Dir, "to-"+filepath.Base(image)) }, nil},
	{"bind mount", func(s *scene, image string) string { return filepath.Join(s.bind(), filepath.Base(image)) }, nil},
	{"mount namespace", ownName.path, []string{"unshare", "-m"}},
}

func (s *scene) bind() string { return filepath.Join(s.h.Dir, "bind") }

// TestRefuse tries every command on every image of a running guest, by every name. Natively it shows the harm. make test
// tries every command on one image by its own name, and the sample on the others and by the other names.
func TestRefuse(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	s, g := besieged(t, h)
	for _, victim := range victims {
		image := filepath.Join(s.dir, victim.name)
		for _, c := range refused {
			if c.format != "" && c.format != victim.format {
				continue
			}
			ofSample := slices.Contains(sample, c.name)
			first := victim.name == victims[0].name
			if first || ofSample || need.All() {
				t.Run(victim.name+"/"+c.name, func(t *testing.T) { refuse(t, v, s, c, victim, image, ownName) })
			}
			if c.virsh || victim.sampled && !ofSample || !need.All() && !(first && ofSample) {
				continue
			}
			for _, a := range aliases {
				t.Run(victim.name+"/"+c.name+"/"+a.name, func(t *testing.T) { refuse(t, v, s, c, victim, image, a) })
			}
		}
	}
	g.unharmed(t)
}

// TestRefuseHotPlugged gives each command a disk that was plugged in the moment before.
func TestRefuseHotPlugged(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	s, g := besieged(t, h)
	for i, c := range refused {
		if c.format == "qcow2" || !need.All() && !slices.Contains(sample, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			name := "hot" + string(rune('a'+i/26)) + string(rune('a'+i%26))
			image := s.image(t, name)
			target := "sd" + name[3:]
			g.Virsh(t, "attach-disk", image, target, "--targetbus", "scsi", "--live").OK(t)
			refuse(t, v, s, c, victim{name, target, "raw", false}, image, ownName)
		})
	}
	g.unharmed(t)
}

// TestRefuseAbove renames and removes the directory that holds the images.
func TestRefuseAbove(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	h.Run(t, harness.Spec{Name: "other"})
	for i, c := range refusedAbove {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, h, "above"+string(rune('a'+i)))
			image := s.image(t, "disk.img")
			h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: image}}})
			before, began := h.Identify(t, image), time.Now()
			r := s.run(t, c, image)
			after := s.look(t, image)
			if harness.Native() {
				harmed(t, c, r, before, after)
				return
			}
			unchanged(t, before, after)
			r.Fails(t, "Device or resource busy")
			explained(t, v.Refusals(t, began), c, "vda")
			stillRunning(t, h)
		})
	}
}

// besieged boots the guest "vm", whose images are the victims, and "other", which is to be saved over them.
func besieged(t *testing.T, h *harness.Host) (*scene, *guest) {
	t.Helper()
	s := newScene(t, h, "vms")
	disk, backing, cd := s.image(t, "disk.img"), s.image(t, "backing.img"), s.image(t, "cd.iso")
	overlay := s.overlay(t, "overlay.qcow2", backing)
	for _, image := range []string{disk, backing, cd, overlay} {
		if err := os.Link(image, image+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(image, aliases[1].path(s, image)); err != nil {
			t.Fatal(err)
		}
	}
	s.bindMount(t)
	h.Virsh(t, "pool-define-as", "vms", "dir", "--target", s.dir).OK(t)
	t.Cleanup(func() { h.Virsh(t, "pool-destroy", "vms"); h.Virsh(t, "pool-undefine", "vms").OK(t) })
	h.Virsh(t, "pool-start", "vms").OK(t)
	h.Run(t, harness.Spec{Name: "other"})
	g := boot(t, h, "vm",
		harness.Disk{Target: "vda", File: disk},
		harness.Disk{Target: "vdb", File: overlay, Format: "qcow2"},
		harness.Disk{Target: "sda", File: cd, CDROM: true})
	return s, g
}

func (s *scene) bindMount(t *testing.T) {
	t.Helper()
	err := os.Mkdir(s.bind(), 0o711)
	if err == nil {
		err = unix.Mount(s.dir, s.bind(), "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.bind(), 0); err != nil {
			t.Errorf("unmount %s: %v", s.bind(), err)
		}
	})
}

// refuse runs one command against one image by one name, and checks all that must be so afterwards.
func refuse(t *testing.T, v *harness.View, s *scene, c command, victim victim, image string, a alias) {
	before, began, counted := s.h.Identify(t, image), time.Now(), count(t, v)
	saved := s.save(t, image)
	if c.virsh {
		s.h.Virsh(t, "pool-refresh", "vms").OK(t)
	}
	path := a.path(s, image)
	r := s.run(t, c, path, a.prefix...)
	if c.behind && !harness.Native() {
		harness.Until(t, "libvirtd was refused", func() bool { return count(t, v) > counted })
	}
	after := s.look(t, image)
	defer s.recover(t, image, path, saved, before, after)
	if a.name == "symlink" && c.byName {
		unchanged(t, before, after) // it was done to the link
		return
	}
	if harness.Native() {
		harmed(t, c, r, before, after)
		return
	}
	if a.name == "hard link" && (c.takesName() || c.relinks) {
		// The domain does not know that name: it is anybody's, and the image stays.
		before.Names, after.Names = []string{s.name(image)}, slices.DeleteFunc(after.Names, func(n string) bool { return n != s.name(image) })
		unchanged(t, before, after)
		return
	}
	unchanged(t, before, after)
	if count(t, v) == counted {
		t.Error("the refusal was not counted")
	}
	if c.virsh {
		began = time.Time{} // always libvirtd: what it did a moment ago with this image is not reported again, only counted
	}
	explained(t, v.Refusals(t, began), c, victim.target)
	if (a.name != "symlink" || !c.relinks) && !(c.behind && r.Exit == 0) {
		r.Fails(t, c.message())
	}
	stillRunning(t, s.h)
}
