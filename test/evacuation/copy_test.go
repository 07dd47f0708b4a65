// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/test/harness"
)

// TestOffline: a domain that is shut off is copied with its chain, its definition and its CD.
func TestOffline(t *testing.T) {
	s := newScene(t)
	r := s.imgcp(t, "--verify", "vm", s.dest)
	r.OK(t)
	m := s.whole(t, "vm")
	if m.Running || m.Transient || m.Method != archive.Offline {
		t.Errorf("%+v", m)
	}
	kinds := map[archive.Kind]int{}
	for _, f := range m.Files {
		kinds[f.Kind]++
	}
	if kinds[archive.Disk] != 2 || kinds[archive.Backing] != 2 || kinds[archive.CDROM] != 1 || kinds[archive.XML] != 1 {
		t.Errorf("files: %v", kinds)
	}
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	s.flat(t)
	if again := s.imgcp(t, "vm", s.dest); again.Exit != 4 {
		t.Errorf("a second copy: exit %d\n%s", again.Exit, again.Stderr)
	}
	s.imgcp(t, "--resume", "vm", s.dest).OK(t)
}

// flat: each qcow2 disk becomes one raw image, running or not.
func (s *scene) flat(t *testing.T) {
	t.Helper()
	dest := s.dest
	defer func() { s.dest = dest }()
	s.dest = dest + ".flat"
	s.imgcp(t, "--flat", "--verify", "vm", s.dest).OK(t)
	m := s.whole(t, "vm")
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	for _, f := range m.Files {
		if f.Kind == archive.Backing || f.Kind == archive.Disk && f.Format != "raw" {
			t.Errorf("not flat: %+v", f)
		}
	}
}

// TestFreeze: a running domain without a definition is copied while it writes; it is on its own images afterwards, with its
// own chain, and has every write.
func TestFreeze(t *testing.T) {
	s := newScene(t)
	s.vm.Virsh(t, "undefine").OK(t)
	s.Virsh(t, "create", filepath.Join(s.Dir, "vm.xml")).OK(t)
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.imgcp(t, "vm", s.dest).OK(t)
	s.atHome(t)
	m := s.whole(t, "vm")
	if !m.Running || !m.Transient || m.Method != archive.Freeze || m.Find(archive.LiveXML) == nil || m.Find(archive.InactiveXML) != nil {
		t.Errorf("%+v", m)
	}
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	s.guest(t, "vda", "read -P 9 5M 1M")
	s.guest(t, "vda", "write -P 10 6M 1M")
	s.guest(t, "vda", "read -P 10 6M 1M")
	s.guest(t, "vda", "flush")
	s.flat(t)
	s.atHome(t)
}

// testBackup: libvirt's pull backup of a running domain, read over NBD: sparse images of one instant, and no trace on the domain.
func testBackup(t *testing.T, s *scene) {
	s.guest(t, "vda", "write -P 9 5M 1M")
	s.guest(t, "vda", "flush") // the image itself is read below
	s.imgcp(t, "--live=backup", "--verify", "vm", s.dest).OK(t)
	s.atHome(t)
	m := s.whole(t, "vm")
	s.same(t, m, "vda")
	s.same(t, m, "vdb")
	if f := m.Find("disks/vda.raw"); m.Method != archive.Backup || !m.Flat || f == nil || f.State != archive.Verified || f.Size != 32*MiB {
		t.Errorf("%+v", m)
	}
	if n := blocks(t, filepath.Join(s.dest, "vm/disks/vda.raw")); n > 6*MiB {
		t.Errorf("the copy takes %d bytes for 4 MiB of data", n)
	}
	if out := s.vm.Virsh(t, "domjobinfo").OK(t); !strings.Contains(out, "None") {
		t.Errorf("a job is left: %s", out)
	}
}

// event is a line of imgcp domain --json.
type event struct {
	Type, Domain string
	Done         bool
	Domains      int
	Bytes        int64
	Left         int64 `json:"left_bytes"`
	Plan         struct {
		Method archive.Method
		Files  []archive.File
		Bytes  int64
	}
}

func events(t *testing.T, out string) (all []event) {
	t.Helper()
	for line := range strings.Lines(out) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// planned: --plan says what would be copied, of the domains that are meant, and makes nothing.
func (s *scene) planned(t *testing.T) {
	t.Helper()
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--all", []string{"other", "vm"}},
		{"--all --exclude=v*", []string{"other"}},
		{"--all --running", nil},
		{"--by-disk=" + s.Image("base.qcow2"), []string{"other", "vm"}},
		{"--by-disk=" + s.images["vdb"], []string{"vm"}},
		{"--order=given vm other", []string{"vm", "other"}},
		{"--order=given --all vm", []string{"vm", "other"}},
	} {
		r := s.imgcp(t, append(append([]string{"--plan", "--json"}, strings.Fields(c.args)...), s.dest)...)
		var got []string
		for _, e := range events(t, r.Stdout) {
			got = append(got, e.Domain)
			if e.Type != "domain-plan" || e.Plan.Method != archive.Offline || len(e.Plan.Files) == 0 || e.Plan.Bytes == 0 {
				t.Errorf("%s: %+v", c.args, e)
			}
		}
		if !slices.Equal(got, c.want) || (r.Exit == 0) != (len(c.want) > 0) {
			t.Errorf("%s: %q (exit %d), want %q", c.args, got, r.Exit, c.want)
		}
	}
	text := s.imgcp(t, "--plan", "--rate-limit=1M", "vm", s.dest).OK(t)
	for _, want := range []string{"vm (offline)", "base.qcow2", "in all", "1.0 MiB/s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}
	if _, err := os.Stat(s.dest); err == nil {
		t.Error("--plan made something")
	}
}

// TestSharedBase: two domains on one base image have one copy of it.
func TestSharedBase(t *testing.T) {
	s := newScene(t)
	second := s.Overlay(t, "second.qcow2", s.Image("middle.qcow2"), "qcow2")
	other := s.Define(t, harness.Spec{Name: "other", Disks: []harness.Disk{{Target: "vda", File: second, Format: "qcow2"}}})
	s.planned(t)
	events := events(t, s.imgcp(t, "--all", "--json", "--order=size", "--between=00:00-23:59", s.dest).OK(t))
	if first, last := events[0], events[len(events)-1]; first.Type != "domain-begin" || first.Domain != "other" || last.Type != "domain-end" ||
		last.Domain != "vm" || !last.Done || last.Domains != 2 || last.Left != 0 || last.Bytes == 0 {
		t.Errorf("the smaller first, then all done: %+v … %+v", first, last)
	}
	s.oneBase(t)
	s.dest += ".running"
	s.vm.Start(t)
	other.Start(t)
	s.imgcp(t, "--all", "--jobs=2", s.dest).OK(t) // both at once
	s.oneBase(t)
	s.atHome(t)
}

// oneBase: the copies of both domains are whole, and have one base.
func (s *scene) oneBase(t *testing.T) {
	t.Helper()
	s.whole(t, "vm")
	s.whole(t, "other")
	a, errA := os.Stat(filepath.Join(s.dest, "vm/disks/base.qcow2"))
	b, errB := os.Stat(filepath.Join(s.dest, "other/disks/base.qcow2"))
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Errorf("the base was copied twice (%v, %v)", errA, errB)
	}
}
