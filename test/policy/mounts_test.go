// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/test/harness"
)

// told lists the events of a kind, as "change source".
func (v *view) told(t *testing.T, kind guard.EventType) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(v.run(t, "events", "--json", v.dir)) {
		var e guard.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == kind {
			list = append(list, e.Change+" "+e.Source)
		}
	}
	return list
}

// says waits until the view's own words, status, doctor and the log, all hold a text, or none of them does.
func (v *view) says(t *testing.T, text string, want bool) {
	t.Helper()
	until(t, "it is known that: "+text, func() bool { return strings.Contains(v.run(t, "status"), text) == want })
	if out, _ := v.try(t, "doctor"); strings.Contains(out, text) != want {
		t.Errorf("doctor says of %q: %v\n%s", text, !want, out)
	}
	if want && !strings.Contains(v.logged(t), "level=WARN msg=\"the view") && !strings.Contains(v.logged(t), "level=WARN msg=\"a file system") {
		t.Errorf("the log does not warn:\n%s", v.logged(t))
	}
}

func (v *view) logged(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(v.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("over", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

// unmount waits for whoever looks at the file system right now, as a daemon that has just ended may.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	until(t, dir+" can be unmounted", func() bool {
		err = unix.Unmount(dir, 0)
		return err != unix.EBUSY
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestViewCovered: what is mounted over the view, or over a directory above it, lets everybody pass by it.
func TestViewCovered(t *testing.T) {
	v := mount(t, allAlways)
	v.image(t, "a.img")
	for _, dir := range []string{v.dir, filepath.Dir(v.dir)} {
		before := len(v.told(t, "view-covered"))
		metric := func(n string) func() bool {
			return func() bool { return strings.Contains(v.scrape(t), `imgward_view_reachable{view="`+v.dir+`"} `+n+"\n") }
		}
		mountTmpfs(t, dir)
		until(t, "the metric falls", metric("0"))
		if dir == v.dir {
			v.says(t, "is covered by tmpfs on "+dir, true)
			if out, err := v.try(t, "umount", v.dir); err == nil || !strings.Contains(out, "covered") {
				t.Errorf("umount of a covered view: %v %s", err, out)
			}
		} else if out := v.run(t, "status"); !strings.Contains(out, "is covered by tmpfs on "+dir) {
			t.Errorf("status does not say so:\n%s", out)
		}
		unmount(t, dir)
		until(t, "the metric rises", metric("1"))
		v.says(t, "is covered by", false)
		if got, want := v.told(t, "view-covered")[before:], []string{"began tmpfs on " + dir, "ended tmpfs on " + dir}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	}
}

// TestMountBelow: a file system that is mounted below the view becomes part of it, and is where it was mounted when the
// view has ended.
func TestMountBelow(t *testing.T) {
	v := newView(t, allAlways)
	sub := filepath.Join(v.dir, "a", "sub")
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	me, image := program(t, t.TempDir()+"/me"), filepath.Join(sub, "a.img")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadDir(sub); err != nil { // the kernel knows the bare directory
		t.Fatal(err)
	}
	mountTmpfs(t, sub)
	taken := []string{"taken-in " + sub}
	until(t, "it is part of the view", func() bool { return slices.Equal(v.told(t, "mount-below"), taken) })
	deep := filepath.Join(sub, "deep")
	mountTmpfs(t, deep)
	taken = append(taken, "taken-in "+deep)
	until(t, "so is one below that", func() bool { return slices.Equal(v.told(t, "mount-below"), taken) })
	if err := os.WriteFile(image, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := does(t, me, 0, "o_trunc", image); got != "EBUSY" {
			t.Errorf("truncate below: %s", got)
		}
		if w := v.describe(t).Warnings; len(w) != 0 {
			t.Errorf("warnings: %q", w)
		}
		v.killWorker(t)
	}
	keeper := v.describe(t).KeeperPID
	held, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	v.run(t, "umount", "--lazy", v.dir) // it is where it was now
	v.run(t, "mount", v.dir)
	held.Close()
	v.run(t, "umount", v.dir)
	until(t, "the daemon ends", func() bool { return syscall.Kill(keeper, 0) != nil })
	if text, err := os.ReadFile(image); err != nil || string(text) != "content" {
		t.Errorf("after the end of the view: %q %v", text, err)
	}
	unmount(t, deep)
	unmount(t, sub)
	if _, err := os.Stat(image); err == nil {
		t.Error("it was mounted there twice")
	}
	if log := v.logged(t); strings.Contains(log, "level=WARN msg=\"a file") {
		t.Errorf("the log warns:\n%s", log)
	}
}

// TestNosuidBelow: the view does not make a set-user-id program of what is none on a file system below it.
func TestNosuidBelow(t *testing.T) {
	v := newView(t, "")
	sub := filepath.Join(v.dir, "sub")
	harness.Sh(t, `mkdir "$SUB" && mount -t tmpfs -o nosuid,mode=755 sub "$SUB" && cp /usr/bin/id "$SUB" && chmod 4755 "$SUB/id"`, "SUB="+sub).OK(t)
	t.Cleanup(func() { unmount(t, sub) })
	id := func() string {
		return harness.Run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(sub, "id"), "-u").OK(t)
	}
	if got := id(); got != "65534" {
		t.Fatalf("natively it runs as %s", got)
	}
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	defer v.run(t, "umount", v.dir)
	if got := id(); got != "65534" {
		t.Errorf("through the view it runs as %s", got)
	}
}

// TestMountBelowApart: a file system that cannot be part of the view is not protected, and that is said.
func TestMountBelowApart(t *testing.T) {
	v := mount(t, allAlways)
	sub := filepath.Join(v.dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("over", sub, "tmpfs", unix.MS_NOSUID, ""); err != nil { // the view would show it without
		t.Fatal(err)
	}
	v.says(t, "was mounted on "+sub, true)
	if w := strings.Join(v.describe(t).Warnings, "\n"); !strings.Contains(w, "it is mounted with nosuid") {
		t.Errorf("it is not said why: %s", w)
	}
	safe := filepath.Join(v.dir, "safe")
	if err := os.Mkdir(safe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("over", safe, "tmpfs", unix.MS_RDONLY, ""); err != nil { // nothing there can be destroyed
		t.Fatal(err)
	}
	defer unmount(t, safe)
	if text := v.scrape(t); !strings.Contains(text, `imgward_mounts_below{view="`+v.dir+`"} 1`+"\n") {
		t.Errorf("metrics:\n%s", text)
	}
	v.killWorker(t)
	v.says(t, "was mounted on "+sub, true)
	unmount(t, sub)
	v.says(t, "was mounted on "+sub, false)
}

// TestViewForced: `umount -f` of a view that is in use ends its connection, though it fails. That does not go unsaid.
func TestViewForced(t *testing.T) {
	v := newView(t, allAlways)
	args := []string{"mount", "--log", v.log, "-o", "policy=" + v.policy, v.dir}
	v.run(t, args...)
	held, err := os.Open(v.image(t, "a.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.Unmount(v.dir, unix.MNT_FORCE); err != unix.EBUSY {
		t.Fatal(err)
	}
	until(t, "the log says so", func() bool { return strings.Contains(v.logged(t), "level=WARN msg=\"the kernel has ended the view") })
	if err := unix.Unmount(v.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	v.run(t, args...)
	if _, err := os.Stat(filepath.Join(v.dir, "a.img")); err != nil {
		t.Error(err)
	}
	v.run(t, "umount", v.dir)
}

// TestMountOverImages: what is mounted over images in use does not become part of the view, or it would hide them until that ends.
func TestMountOverImages(t *testing.T) {
	v := mount(t, allAlways)
	sub := filepath.Join(v.dir, "a", "sub")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	v.image(t, "a/sub/a.img")
	mountTmpfs(t, filepath.Dir(sub))
	v.says(t, "was mounted on "+filepath.Dir(sub), true)
	if w := strings.Join(v.describe(t).Warnings, "\n"); !strings.Contains(w, "it hides a/sub/a.img") {
		t.Errorf("it is not said why: %s", w)
	}
	unmount(t, filepath.Dir(sub))
	v.says(t, "was mounted on "+filepath.Dir(sub), false)
	if _, err := os.Stat(filepath.Join(sub, "a.img")); err != nil {
		t.Error(err)
	}
}

// TestViewGone: a view that others unmount is missed, and still asked by its name as long as somebody holds files of it.
func TestViewGone(t *testing.T) {
	v := newView(t, allAlways)
	args := []string{"mount", "--log", v.log, "-o", "policy=" + v.policy, v.dir}
	v.run(t, args...)
	unmount(t, v.dir)
	until(t, "the log says so", func() bool { return strings.Contains(v.logged(t), "level=WARN msg=\"the view is no longer mounted") })

	v.run(t, args...)
	v.image(t, "a.img")
	held, err := os.Open(filepath.Join(v.dir, "a.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(v.dir, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	v.says(t, "is no longer mounted on "+v.dir, true)
	if got := v.told(t, "view-gone"); !slices.Equal(got, []string{"began "}) {
		t.Errorf("events %q", got)
	}
	keeper := v.describe(t).KeeperPID
	me, image := program(t, t.TempDir()+"/me"), filepath.Join(v.dir, "a.img")
	if got := does(t, me, 0, "write", image); got != "ok" {
		t.Errorf("without the view, a write: %s", got)
	}
	for range 2 { // what mount advises: the same daemon has it again, with all that is held
		v.run(t, "mount", v.dir)
		if now := v.describe(t).KeeperPID; now != keeper {
			t.Errorf("another daemon has the view: keeper %d, was %d", now, keeper)
		}
		v.says(t, "is no longer mounted on", false)
		if got := does(t, me, 0, "write", image); got != "EBUSY" {
			t.Errorf("through the view again, a write: %s", got)
		}
		v.killWorker(t)
		v.run(t, "umount", "--lazy", v.dir)
		until(t, "the end is noticed", func() bool { return strings.Contains(v.run(t, "status", v.dir), "was unmounted from") })
	}
	if got := v.told(t, "view-gone"); !slices.Equal(got, []string{"began ", "ended "}) {
		t.Errorf("events %q", got)
	}
	held.Close()
	until(t, "the daemon ends", func() bool { return syscall.Kill(keeper, 0) != nil })

	if err := os.Truncate(v.log, 0); err != nil {
		t.Fatal(err)
	}
	v.run(t, args...)
	v.run(t, "umount", v.dir)
	if text := v.logged(t); strings.Contains(text, "no longer mounted") {
		t.Errorf("imgward umount is reported as well:\n%s", text)
	}
}

// TestViewMoved: mount --move leaves the bare directory behind.
func TestViewMoved(t *testing.T) {
	v := newView(t, allAlways)
	base := filepath.Dir(v.dir)
	if err := unix.Mount(base, base, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })             // the log is there, which the daemon has open to the last
	if err := unix.Mount("", base, "", unix.MS_PRIVATE, ""); err != nil { // what is mounted on a shared mount cannot be moved
		t.Fatal(err)
	}
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	v.image(t, "a.img")
	to := filepath.Join(filepath.Dir(v.dir), "to")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(v.dir, to, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	v.says(t, "was moved to "+to, true)
	if got := v.told(t, "view-moved"); !slices.Equal(got, []string{"began " + to}) {
		t.Errorf("events %q", got)
	}
	v.killWorker(t)
	if out, err := v.try(t, "check", "truncate", filepath.Join(to, "a.img")); err == nil {
		t.Errorf("check: %s", out)
	}
	if out, err := v.try(t, "umount", v.dir); err == nil || !strings.Contains(out, "imgward umount "+to) {
		t.Errorf("umount by the old name: %v %s", err, out)
	}
	v.run(t, "umount", to)
}
