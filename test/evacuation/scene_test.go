// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
)

const MiB = harness.MiB

// scene is a host with one domain: a chain of three qcow2 images, a raw disk and a CD. No guest runs in it; what writes to
// its disks is QEMU's own qemu-io, through the very device that a guest would use.
type scene struct {
	*harness.Host
	vm     *harness.Domain
	images map[string]string // by target
	dest   string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	h := harness.New(t)
	s := &scene{Host: h, images: make(map[string]string), dest: filepath.Join(h.Out, "evac")}
	base := h.Qcow2(t, "base.qcow2", 32*MiB)
	pattern(t, base, "qcow2", 1, 0)
	middle := h.Overlay(t, "middle.qcow2", base, "qcow2")
	pattern(t, middle, "qcow2", 2, 1)
	s.images["vda"] = h.Overlay(t, "top.qcow2", middle, "qcow2")
	pattern(t, s.images["vda"], "qcow2", 3, 2)
	s.images["vdb"] = h.Raw(t, "data.img", 16*MiB)
	cd := h.Raw(t, "cd.iso", 2*MiB)
	s.vm = h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{
		{Target: "vda", File: s.images["vda"], Format: "qcow2"},
		{Target: "vdb", File: s.images["vdb"]},
		{Target: "sda", File: cd, CDROM: true},
	}})
	return s
}

// pattern fills the MiB at an offset of so many MiB.
func pattern(t *testing.T, image, format string, value, at int) {
	t.Helper()
	harness.Run(t, "qemu-io", "-f", format, "-c", fmt.Sprintf("write -P %d %dM 1M", value, at), image).OK(t)
}

// guest has the domain's device write or read: "write -P 7 4M 64k".
func (s *scene) guest(t *testing.T, target, command string) string {
	t.Helper()
	device := map[string]string{"vda": "/machine/peripheral/virtio-disk0/virtio-backend", "vdb": "/machine/peripheral/virtio-disk1/virtio-backend"}[target]
	out := s.vm.Virsh(t, "qemu-monitor-command", "--hmp", fmt.Sprintf(`qemu-io -d %s "%s"`, device, command)).OK(t)
	if strings.Contains(out, "rror") || strings.Contains(out, "failed") {
		t.Fatalf("%s on %s: %s", command, target, out)
	}
	return out
}

// imgcp runs imgcp domain.
func (s *scene) imgcp(t *testing.T, args ...string) harness.Result {
	t.Helper()
	return harness.Run(t, append([]string{harness.Imgcp(), "domain", "-v"}, args...)...)
}

// sources are the images of the domain now, by target.
func (s *scene) sources(t *testing.T) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for line := range strings.Lines(s.vm.Virsh(t, "domblklist").OK(t)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "-" {
			m[f[0]] = f[1]
		}
	}
	return m
}

// atHome fails the test unless the domain is on its own images, with its own chain, without a job or an overlay.
func (s *scene) atHome(t *testing.T) {
	t.Helper()
	now := s.sources(t)
	for target, image := range s.images {
		if now[target] != image {
			t.Errorf("%s is %s, not its own image %s", target, now[target], image)
		}
		if job := s.vm.Virsh(t, "blockjob", target); strings.Contains(job.Stdout+job.Stderr, "%") { // progress goes to stderr
			t.Errorf("%s has a block job: %s%s", target, job.Stdout, job.Stderr)
		}
	}
	left, err := filepath.Glob(s.Image("*.imgcp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	xml := s.vm.Virsh(t, "dumpxml").OK(t)
	if strings.Contains(xml, "imgcp-") || s.vm.State(t) == "running" && !strings.Contains(xml, "middle.qcow2") {
		t.Errorf("not the chain it was:\n%s", xml)
	}
	uuid := strings.TrimSpace(s.vm.Virsh(t, "domuuid").OK(t))
	if _, err := os.Stat("/var/lib/imgcp/domains/" + uuid + ".json"); err == nil {
		t.Error("something is still to be undone")
	}
}

// whole fails the test unless the copy is complete and stands on itself alone; it returns its manifest.
func (s *scene) whole(t *testing.T, name string) archive.Manifest {
	t.Helper()
	a, err := archive.Open(filepath.Join(s.dest, name))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	m := a.Manifest()
	if !m.Whole() {
		b, _ := json.MarshalIndent(m, "", " ")
		t.Errorf("not whole: %s", b)
	}
	for _, f := range m.Files {
		st, err := os.Stat(a.Path(f.Path))
		if err != nil || st.Size() != f.Size {
			t.Errorf("%s: size %v, want %d (%v)", f.Path, st, f.Size, err)
		}
		if f.Format != "qcow2" {
			continue
		}
		var info struct {
			Backing string `json:"backing-filename"`
			Full    string `json:"full-backing-filename"`
		}
		out := harness.Run(t, "qemu-img", "info", "-U", "--output=json", a.Path(f.Path)).OK(t)
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(info.Backing, "/") || info.Backing != "" && !strings.HasPrefix(info.Full, s.dest) {
			t.Errorf("%s stands on %q (%s)", f.Path, info.Backing, info.Full)
		}
	}
	return m
}

// same compares a disk's copy with the original as the guest sees them.
func (s *scene) same(t *testing.T, m archive.Manifest, target string) {
	t.Helper()
	for _, f := range m.Files {
		if f.Kind == archive.Disk && f.Target == target {
			harness.Run(t, "qemu-img", "compare", "-U", filepath.Join(s.dest, m.Domain, f.Path), s.images[target]).OK(t)
			return
		}
	}
	t.Errorf("no copy of %s", target)
}

// blocks is how many bytes a file takes on its file system.
func blocks(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
