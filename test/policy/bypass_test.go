// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// TestOtherWays: what doctor says to do about another way to the files does away with it.
func TestOtherWays(t *testing.T) {
	v := newView(t, allAlways)
	base := filepath.Dir(v.dir)
	bound, above := filepath.Join(base, "bound"), filepath.Join(base, "above")
	for from, to := range map[string]string{v.dir: bound, base: above} {
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", to, "", unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
	}
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	t.Cleanup(func() { v.run(t, "umount", v.dir) })
	image := v.image(t, "a.img")
	for _, way := range []string{bound, filepath.Join(above, filepath.Base(v.dir))} {
		out, _ := v.try(t, "doctor")
		advice := regexp.MustCompile(`are also at ` + regexp.QuoteMeta(way) + `, unprotected\n.*read-only: (mount .*)`).FindStringSubmatch(out)
		if advice == nil {
			t.Fatalf("doctor does not know %s:\n%s", way, out)
		}
		harness.Sh(t, advice[1]).OK(t)
		if err := os.Truncate(filepath.Join(way, filepath.Base(image)), 0); err == nil {
			t.Errorf("%s lets through what the view refuses, after %s", way, advice[1])
		}
		if out, _ := v.try(t, "doctor"); strings.Contains(out, way+", unprotected") {
			t.Errorf("doctor still speaks of %s:\n%s", way, out)
		}
	}
	unix.Unmount(filepath.Join(above, filepath.Base(v.dir)), unix.MNT_DETACH)
}
