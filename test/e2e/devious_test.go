// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imgward/test/harness"
)

// TestRefuseDevious tries the ways that programs take on the disk of a running domain.
func TestRefuseDevious(t *testing.T) {
	if harness.Native() {
		return // some of these take the machine's file system down
	}
	h := harness.New(t)
	v := h.Mount(t)
	s := newScene(t, h, "vms")
	image := s.image(t, "disk.img")
	d := h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: image}}})
	env := append(s.env(image), "VM="+strconv.Itoa(d.PID(t)))
	run := func(t *testing.T, c command) harness.Result {
		return harness.Sh(t, "set -e; "+c.script, env...)
	}
	for _, c := range devious {
		t.Run(c.name, func(t *testing.T) {
			before, began, saved := h.Identify(t, image), time.Now(), s.save(t, image)
			r := run(t, c)
			after := s.look(t, image)
			unchanged(t, before, after)
			if before.Sum != after.Sum || before.Size != after.Size || len(before.Names) != len(after.Names) {
				s.putBack(t, saved, before.Names)
			}
			r.Fails(t, c.message())
			if c.ops != "" {
				explained(t, v.Refusals(t, began), c, "vda")
			}
			s.sweep(t)
		})
	}
	for _, c := range deviousReaders {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			run(t, c).OK(t)
			for _, r := range v.Refusals(t, began) {
				t.Errorf("hindered: %+v", r)
			}
			os.Remove(filepath.Join(s.dir, "new"))
		})
	}
	if state := d.State(t); state != "running" {
		t.Errorf("the domain is %s", state)
	}
}

// TestCachedNegativeName: the kernel knows that there is no such name, and asks for its creation; meanwhile the name has
// come up beside the view, and is a running domain's disk.
func TestCachedNegativeName(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	before := h.Identify(t, disk)
	for name, script := range map[string]string{"truncating": `: >"$IMG"`, "appending": `echo x >>"$IMG"`} {
		other := h.Image(name)
		if _, err := os.Stat(other); err == nil {
			t.Fatal("it is there")
		}
		if err := os.Link(h.Beneath(t, disk), h.Beneath(t, other)); err != nil {
			t.Fatal(err)
		}
		harness.Sh(t, script, "IMG="+other).Fails(t, "busy")
		if err := os.Remove(h.Beneath(t, other)); err != nil {
			t.Fatal(err)
		}
	}
	unchanged(t, before, h.Identify(t, disk))
}
