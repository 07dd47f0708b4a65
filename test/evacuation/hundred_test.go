// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
	"imgward/test/need"
)

// TestHundred evacuates a hundred domains, a fifth of them running, and is killed five times, with its guardians: the report is
// complete, each copy verified, and every domain on its own images. How long it takes without a kill is logged.
func TestHundred(t *testing.T) {
	need.Long(t)
	const domains, running, kills = 100, 20, 5
	h := harness.New(t)
	s := &scene{Host: h, dest: filepath.Join(h.Out, "evac")}
	base := h.Qcow2(t, "base.qcow2", 8*MiB)
	pattern(t, base, "qcow2", 1, 0)
	overlay, err := os.ReadFile(h.Overlay(t, "overlay.qcow2", base, "qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	var define, undefine strings.Builder
	for i := range domains {
		name := fmt.Sprintf("vm%03d", i)
		image := h.Image(name + ".qcow2")
		if err := os.WriteFile(image, overlay, 0o600); err != nil {
			t.Fatal(err)
		}
		xml := h.DomainXML(t, harness.Spec{Name: name, Disks: []harness.Disk{
			{Target: "vda", File: image, Format: "qcow2"}, {Target: "vdb", File: h.Raw(t, name+".img", MiB/2)},
		}})
		fmt.Fprintf(&define, "define %s\n", h.WriteXML(t, name+".xml", xml))
		if i < running {
			fmt.Fprintf(&define, "start %s --paused\n", name)
			fmt.Fprintf(&undefine, "destroy %s\n", name)
		}
		fmt.Fprintf(&undefine, "undefine %s\n", name)
	}
	virsh := func(commands string) harness.Result {
		return harness.Cmd{Args: []string{"virsh", "-q", "-c", "qemu:///system"}, Stdin: strings.NewReader(commands)}.Run(t)
	}
	t.Cleanup(func() {
		virsh(undefine.String())
		if left := h.Virsh(t, "list", "--all", "--name").OK(t); strings.TrimSpace(left) != "" {
			t.Errorf("left behind: %s", left)
		}
	})
	if n := strings.Count(virsh(define.String()).Stderr, "error"); n > 0 {
		t.Fatalf("%d errors", n)
	}
	begun := time.Now()
	s.imgcp(t, "--quiet", "--all", "--jobs=4", filepath.Join(h.Out, "measure")).OK(t)
	whole := time.Since(begun)
	t.Logf("%d domains, %d running: %v", domains, running, whole.Round(time.Millisecond))
	for i := range kills {
		cmd := s.start(t, "--all", "--jobs=4", "--resume", "--verify", s.dest)
		time.Sleep(whole / (kills + 1)) // each goes on where the one before ended
		s.kill(t, cmd, i%2 == 1)
	}
	s.imgcp(t, "--all", "--jobs=4", "--resume", "--verify", s.dest).OK(t)
	var sum struct{ Domains, Verified int }
	for line := range strings.Lines(harness.Run(t, harness.Imgcp(), "report", "--verify", "--json", s.dest).OK(t)) {
		if err := json.Unmarshal([]byte(line), &sum); err != nil {
			t.Fatal(err)
		}
	}
	if sum.Domains != domains || sum.Verified != domains {
		t.Errorf("the report: %+v", sum)
	}
	if left, _ := filepath.Glob(h.Image("*.imgcp-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	for i := range running {
		if now := h.Virsh(t, "domblklist", fmt.Sprintf("vm%03d", i)).OK(t); !strings.Contains(now, fmt.Sprintf("/vm%03d.qcow2", i)) {
			t.Errorf("vm%03d: %s", i, now)
		}
	}
}

// TestFigures logs what a copy of a domain costs beside a plain copy of its disk, and for how long its disks stand still.
func TestFigures(t *testing.T) {
	need.Long(t)
	h := harness.New(t)
	image := h.Raw(t, "disk.img", 1024*MiB)
	s := &scene{Host: h, vm: h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: image}}})}
	timed := func(what string, args ...string) {
		begun := time.Now()
		r := harness.Run(t, append([]string{harness.Imgcp()}, args...)...)
		r.OK(t)
		t.Logf("%-32s %v %s", what, time.Since(begun).Round(10*time.Millisecond), regexp.MustCompile("snapshot took: [^)]*").FindString(r.Stderr))
	}
	for i := range 3 {
		out := filepath.Join(h.Out, fmt.Sprint(i))
		timed("imgcp, the disk alone", image, out+".img")
		timed("imgcp domain, shut off", "domain", "vm", out+".off")
		s.vm.Start(t)
		timed("imgcp domain, running, freeze", "domain", "vm", out+".freeze")
		timed("imgcp domain, running, backup", "domain", "--live=backup", "vm", out+".backup")
		s.vm.Virsh(t, "destroy").OK(t)
	}
}
