// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTwoViews: a file is reached by one view only, for a view knows its own handles alone.
func TestTwoViews(t *testing.T) {
	base := newView(t, allAlways)
	at := func(name string) string {
		dir := filepath.Join(filepath.Dir(base.dir), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	sub, other, bound, free := at("view/sub"), at("other"), at("bound"), at("free")
	if err := unix.Mount(base.dir, bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", bound, "", unix.MS_PRIVATE, ""); err != nil { // else the view shows up there as well
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(bound, unix.MNT_DETACH) })
	args := func(extra ...string) []string {
		return append([]string{"mount", "--log", base.log, "-o", "policy=" + base.policy}, extra...)
	}
	refused := func(names string, extra ...string) {
		t.Helper()
		out, err := base.try(t, args(extra...)...)
		if err == nil {
			base.run(t, "umount", extra[len(extra)-1])
		}
		if err == nil || !strings.Contains(out, names) {
			t.Errorf("mount %v: %v %s, should be refused and name %s", extra, err, out, names)
		}
	}

	base.run(t, args("--backing", base.dir, other)...)
	refused(other, base.dir)
	refused(other, sub)
	refused(other, "--backing", bound, free)
	base.run(t, "umount", other)

	base.run(t, args(sub)...)
	refused(sub, base.dir) // it would be nested
	base.run(t, "umount", sub)

	base.run(t, args(base.dir)...)
	refused(base.dir, "--backing", bound, free)
	refused(base.dir, "--backing", free, sub) // inside the view
	refused(base.dir, sub)
	base.run(t, args("--backing", other, free)...) // nothing in common
	base.run(t, "umount", free)
	base.run(t, "umount", base.dir)
}
