// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/calls"
	"imgward/guard/layers"
	"imgward/guard/policy"
)

// gather goes through uses as a declaration does.
func gather(p *policy.Policy, uses map[guard.ID][]guard.Use, views []View, before map[guard.ID]*file, mounted ...uint64) *gathering {
	g := &gathering{
		policy: p, views: views, slow: &calls.Keyed{}, byID: map[guard.ID]*Image{}, known: map[guard.ID]guard.ID{},
		also: map[guard.ID][]guard.Use{}, found: map[guard.ID]*file{}, before: before, stack: layers.Stack{}.Once(), dirs: map[guard.ID]*dir{},
		disks: map[uint64][]layers.Layer{}, under: map[uint64]bool{},
	}
	g.mounted = map[uint64]string{}
	for _, dev := range mounted {
		g.mounted[dev] = "a view"
	}
	for id, list := range uses {
		_ = g.add(id, list)
	}
	g.addDirs()
	return g
}

func images(t testing.TB, dir string, n int) map[guard.ID][]guard.Use {
	t.Helper()
	uses := map[guard.ID][]guard.Use{}
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%d.img", i))
		if err := os.WriteFile(path, []byte("image"), 0o600); err != nil {
			t.Fatal(err)
		}
		uses[idOf(t, path)] = []guard.Use{{Path: path, PID: 1000 + i, Evidence: guard.EvidenceLibvirt}}
	}
	return uses
}

func idOf(t testing.TB, path string) guard.ID {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return guard.StatID(&st)
}

// TestGather: the directories above an image are declared for its processes, and rules hold for what is below a view.
func TestGather(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"view/free", "view/audit", "view/kept/below"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := policy.Default()
	free, audit := p.Default, p.Default
	free.Paths, free.Protect = []string{"free/*"}, policy.Never
	audit.Paths, audit.Mode = []string{"audit/*"}, policy.Audit
	p.Rules = []policy.Rule{free, audit}
	uses := map[guard.ID][]guard.Use{}
	for i, d := range []string{"view/free", "view/audit", "view/kept/below"} {
		for id, list := range images(t, filepath.Join(root, d), 1) {
			list[0].PID = i + 1
			uses[id] = list
		}
	}
	views := []View{{Mountpoint: filepath.Join(root, "view"), Tree: filepath.Join(root, "view")}}
	var before map[guard.ID]*file
	for range 2 { // the second time with what the first has found
		g := gather(p, uses, views, before)
		for path, want := range map[string]struct {
			deny    policy.Ops
			audit   bool
			holders []int
		}{
			"view/free/0.img": {0, false, []int{1}}, "view/audit/0.img": {policy.AllOps, true, []int{2}}, "view/kept/below/0.img": {policy.AllOps, false, []int{3}},
			"view/kept/below": {policy.Rename, false, []int{3}}, "view/kept": {policy.Rename, false, []int{3}}, "view/audit": {policy.Rename, true, []int{2}},
		} {
			m := g.byID[idOf(t, filepath.Join(root, path))]
			if m == nil || m.Deny != want.deny || m.Audit != want.audit || !slices.Equal(m.Holders, want.holders) {
				t.Errorf("%s: %+v, want %+v", path, m, want)
			}
		}
		if m := g.byID[idOf(t, filepath.Join(root, "view/free"))]; m != nil {
			t.Errorf("a directory that nobody minds: %+v", m)
		}
		if m := g.byID[idOf(t, filepath.Join(root, "view"))]; m == nil || len(m.Holders) != 2 || m.Audit {
			t.Errorf("the directory above both, one of which is more than watched: %+v", m)
		}
		for id, f := range before {
			if g.found[id] == nil || g.found[id].File != f.File {
				t.Errorf("%v was opened again", id)
			}
		}
		before = g.found
	}
	for _, f := range before {
		f.Close()
	}
}

// TestSilentView: while a view does not say where its files are, none of them is taken for what is behind it, and remembered.
func TestSilentView(t *testing.T) {
	dir := t.TempDir()
	uses := images(t, dir, 1)
	if g := gather(policy.Default(), uses, nil, nil, idOf(t, dir).Dev); len(g.byID) > 0 || len(g.found) > 0 {
		t.Errorf("declared: %+v", g.byID)
	}
	g := gather(policy.Default(), uses, []View{{Mountpoint: dir, Tree: dir}}, nil, idOf(t, dir).Dev)
	for id := range uses {
		if g.byID[id] == nil {
			t.Error("the view has answered, and its image is not declared")
		}
	}
	for _, f := range g.found {
		f.Close()
	}
}

// BenchmarkGather is what a declaration of 10,000 images takes before the kernel is told, when it knows them already.
func BenchmarkGather(b *testing.B) {
	uses := images(b, b.TempDir(), 10_000)
	before := gather(policy.Default(), uses, nil, nil).found
	for b.Loop() {
		before = gather(policy.Default(), uses, nil, before).found
	}
	for _, f := range before {
		f.Close()
	}
}
