// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
)

// nightly is a backup that stays on one file system and begins above the view.
const nightly = "0 2 * * * root rsync -ax / backup:/srv/host\n"

// TestBackups: a backup that stays on one file system passes by a view in place. That is said, and there is a way out.
func TestBackups(t *testing.T) {
	v := newView(t, allAlways)
	v.image(t, "a.img")
	base := filepath.Dir(v.dir)
	mountTmpfs(t, "/etc/cron.d")
	t.Cleanup(func() { unmount(t, "/etc/cron.d") })
	if err := os.WriteFile("/etc/cron.d/nightly", []byte(nightly), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"mount", "--log", v.log, "-o", "policy=" + v.policy, v.dir}
	if out := v.run(t, args...); !strings.Contains(out, "/etc/cron.d/nightly:1: rsync -ax") || !strings.Contains(out, "--expose-backing") {
		t.Errorf("mount does not speak of the backup:\n%s", out)
	}
	if out, err := v.try(t, "doctor"); err == nil || !strings.Contains(out, "leaves "+v.dir+" out") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	images := func() string {
		out, err := exec.Command("find", base, "-xdev", "-name", "a.img").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if found := images(); found != "" {
		t.Fatalf("find -xdev finds %q: then there is nothing to speak of", found)
	}
	v.run(t, "umount", v.dir)

	exposed := filepath.Join(base, "exposed")
	if err := os.Mkdir(exposed, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := v.try(t, "mount", "--expose-backing", exposed+",rw", v.dir); err == nil || !strings.Contains(out, "read-only") {
		t.Errorf("exposed for writing: %v %s", err, out)
	}
	for range 2 { // again, with what is there already
		if out := v.run(t, append([]string{"mount", "--expose-backing", exposed + ",ro"}, args[1:]...)...); strings.Contains(out, "WARNING") {
			t.Errorf("mount warns:\n%s", out)
		}
		image := filepath.Join(exposed, "a.img")
		if found := images(); found != image {
			t.Errorf("find -xdev finds %q", found)
		}
		if err := os.Truncate(image, 0); err != unix.EROFS && !strings.Contains(err.Error(), "read-only") {
			t.Errorf("truncate of what is exposed: %v", err)
		}
		if out, _ := v.try(t, "doctor"); strings.Contains(out, "problem  backups") || strings.Contains(out, exposed+", unprotected") {
			t.Errorf("doctor:\n%s", out)
		}
		v.killWorker(t)
		if err := unix.Unmount(v.dir, 0); err != nil { // by others: what is exposed stays
			t.Fatal(err)
		}
	}
	v.run(t, append([]string{"mount", "--expose-backing", exposed}, args[1:]...)...)
	v.run(t, "umount", v.dir)
	if table, err := mounttable.Now(); err != nil || table.Topmost(exposed) != nil {
		t.Error("what was exposed is still mounted after imgward umount")
	}
}
