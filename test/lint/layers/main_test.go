// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		inTest             bool
		breaches           int
	}{
		{"imgward/fs", "imgward/guard", false, 0},
		{"imgward/guard", "imgward/fs", false, 1},
		{"imgward/guard/libvirt", "imgward/fs", true, 1},
		{"imgward/guard/libvirt", "libvirt.org/go/libvirtxml", false, 0},
		{"imgward/copy", "libvirt.org/go/libvirtxml", false, 1},
		{"imgward/copy", "libvirt.org/go/libvirtxml", true, 0},
		{"imgward/cmd/imgcp", "imgward/fs", false, 1},
		{"imgward/cmd/imgward", "imgward/fs", false, 0},
		{"imgward/copy", "imgward/test/harness", true, 1},
		{"imgward/copy", "imgward/test/need", true, 0},
		{"imgward/copy", "imgward/test/need", false, 1},
		{"imgward/cmd/imgward", "imgward/cmd/imgward/control", false, 0},
		{"imgward/cmd/imgcp", "imgward/cmd/imgward/control", false, 1},
		{"imgward/fsck", "github.com/hanwen/go-fuse/v2/fuse", false, 1},
	} {
		p := pkg{ImportPath: c.importer, Imports: []string{c.imported}}
		if c.inTest {
			p = pkg{ImportPath: c.importer, TestImports: []string{c.imported}}
		}
		if got := check([]pkg{p}); len(got) != c.breaches {
			t.Errorf("%s → %s (in a test: %v): breaches %q, want %d", c.importer, c.imported, c.inTest, got, c.breaches)
		}
	}
}
