// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// TestRefuseAboveOtherName: the domain uses the image by one hard link, and the view came to know it by the other. The
// directory of the one stays; that of the other, a name that no use knows, may go.
func TestRefuseAboveOtherName(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	known, used := h.Image("known"), h.Image("used")
	for _, dir := range []string{known, used} {
		if err := os.Mkdir(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	h.Raw(t, "known/vm.img", 8*MiB)
	if err := os.Link(known+"/vm.img", used+"/vm.img"); err != nil {
		t.Fatal(err)
	}
	h.Mount(t)
	if _, err := os.Stat(known + "/vm.img"); err != nil { // the view knows it by this name
		t.Fatal(err)
	}
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: used + "/vm.img"}}})
	harness.Run(t, "mv", used, used+".old").Fails(t, "busy")
	harness.Run(t, "mv", known, known+".old").OK(t)
	harness.Run(t, "mv", used, used+".old").Fails(t, "busy")
}

// named are ways in which a domain may name its disk, other than by the path in the view.
var named = []struct {
	name string
	// path makes the name; image is the path in the view.
	path func(t *testing.T, h *harness.Host, image string) string
}{
	{"a symlink outside of the view", func(t *testing.T, h *harness.Host, image string) string {
		link := filepath.Join(h.Dir, "link.img")
		must(t, os.Symlink(image, link))
		return link
	}},
	{"a symlink to a symlinked directory", func(t *testing.T, h *harness.Host, image string) string {
		dir, link := filepath.Join(h.Dir, "dir"), filepath.Join(h.Dir, "link.img")
		must(t, os.Symlink(filepath.Base(h.Images), dir))
		must(t, os.Symlink("./dir/../"+filepath.Base(h.Images)+"/"+filepath.Base(image), link))
		return link
	}},
	{"a bind mount of the view", func(t *testing.T, h *harness.Host, image string) string {
		return filepath.Join(bindMount(t, h.Images, filepath.Join(h.Dir, "bind")), filepath.Base(image))
	}},
	{"a bind mount of the file", func(t *testing.T, h *harness.Host, image string) string {
		target := filepath.Join(h.Dir, "bound.img")
		must(t, os.WriteFile(target, nil, 0o600))
		return bindMount(t, image, target)
	}},
	{"the backing directory, past the view", func(t *testing.T, h *harness.Host, image string) string {
		dir := filepath.Join(h.Dir, "beneath")
		must(t, os.Mkdir(dir, 0o711))
		return filepath.Join(bindMount(t, h.Beneath(t, h.Images), dir), filepath.Base(image))
	}},
	{"a hard link outside of the view", func(t *testing.T, h *harness.Host, image string) string {
		link := filepath.Join(h.Out, "hard.img")
		must(t, os.Link(h.Beneath(t, image), link))
		return link
	}},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bindMount(t *testing.T, from, to string) string {
	t.Helper()
	if st, err := os.Stat(from); err == nil && st.IsDir() {
		os.Mkdir(to, 0o711)
	}
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(to, 0); err != nil {
			t.Errorf("unmount %s: %v", to, err)
		}
	})
	return to
}

// TestNamedOtherwise: by whatever name a domain has its disk, the image is protected by its own.
func TestNamedOtherwise(t *testing.T) {
	if harness.Native() {
		return
	}
	for _, c := range named {
		t.Run(c.name, func(t *testing.T) {
			h := harness.New(t)
			h.Mount(t)
			disk := h.Raw(t, "vm.img", 8*MiB)
			path := c.path(t, h, disk)
			d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: path}}})
			before := h.Identify(t, disk)
			protected(t, disk)
			unchanged(t, before, h.Identify(t, disk))
			d.Virsh(t, "destroy").OK(t)
			harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "count=1").OK(t)
		})
	}
}
