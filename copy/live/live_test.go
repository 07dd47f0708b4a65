// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/copy/internal/testvol"
	"imgward/copy/source"
	"imgward/guard"
)

var quiet = slog.New(slog.DiscardHandler)

// disk is a running domain's, and where its copy is to go.
func disk(t *testing.T, dir string) source.LiveImage {
	t.Helper()
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte("guest data "), 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return source.LiveImage{
		File: f, Path: path, Target: filepath.Join(dir, "copy.img"),
		Uses: []guard.Use{{Domain: "vm", Target: "vda", Role: guard.RoleDisk, Writable: true}},
	}
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	p, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	q, err := os.ReadFile(b)
	if err != nil || !bytes.Equal(p, q) {
		t.Errorf("%s and %s differ (%v)", a, b, err)
	}
}

func TestSuspend(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		f := newFake(t)
		t.Setenv(helperEnv, "1")
		dir := testvol.Mount(t, kind, testvol.MinSize)
		i := disk(t, dir)
		s, err := Suspend{Libvirt: f, Helper: helper(), Log: quiet}.Snapshot(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.calls(); !slices.Equal(got, []string{"state", "suspend", "resume"}) {
			t.Errorf("%s: libvirt was asked for %q", kind, got)
		}
		if !s.Unnamed {
			t.Errorf("%s: the clone cannot become the copy by being named", kind)
		}
		onlyDisk(t, dir)
		sameFiles(t, i.Path, fmt.Sprintf("/proc/self/fd/%d", s.File.Fd()))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSuspendWithoutReflinks: nobody is suspended for a copy of minutes.
func TestSuspendWithoutReflinks(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	dir := testvol.Mount(t, "ext4", 64<<20)
	i := disk(t, dir)
	_, err := Suspend{Libvirt: f, Helper: helper(), Log: quiet}.Snapshot(t.Context(), i)
	if err == nil || !strings.Contains(err.Error(), "--live=backup") {
		t.Errorf("error %v, want one that names the other way", err)
	}
	if got := f.calls(); len(got) > 0 {
		t.Errorf("libvirt was asked for %q", got)
	}
	onlyDisk(t, dir)
}

// TestSuspendNoLongerThanItSays: a disk with so many extents that the clone would take too long is left to run, and one
// whose pause is longer than expected is given up.
func TestSuspendNoLongerThanItSays(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		f := newFake(t)
		t.Setenv(helperEnv, "1")
		dir := testvol.Mount(t, kind, testvol.MinSize)
		i := disk(t, dir)
		w, err := os.OpenFile(i.Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for n := range int64(2000) {
			if _, err := w.WriteAt([]byte{1}, (n*2+1024)*4096); err != nil {
				t.Fatal(err)
			}
		}
		short := Suspend{Libvirt: f, Helper: helper(), Log: quiet, MaxPause: 100 * time.Millisecond}
		if err := source.Planner(short).Plan(t.Context(), i); !errors.Is(err, errTooLong) {
			t.Errorf("%s: planned: error %v", kind, err)
		}
		_, err = short.Snapshot(t.Context(), i)
		if !errors.Is(err, errTooLong) || !strings.Contains(err.Error(), "--live=backup") || !strings.Contains(err.Error(), "extents") {
			t.Errorf("%s: error %v", kind, err)
		}
		if got := f.calls(); len(got) > 0 {
			t.Errorf("%s: libvirt was asked for %q", kind, got)
		}
		onlyDisk(t, dir)
		s, err := Suspend{Libvirt: f, Helper: helper(), Log: quiet, MaxPause: time.Minute}.Snapshot(t.Context(), i)
		if err != nil {
			t.Fatalf("%s: allowed: %v", kind, err)
		}
		sameFiles(t, i.Path, fmt.Sprintf("/proc/self/fd/%d", s.File.Fd()))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func onlyDisk(t *testing.T, dir string) {
	t.Helper()
	left, _ := filepath.Glob(dir + "/.*")
	left = slices.DeleteFunc(left, func(s string) bool { return filepath.Base(s) == "." || filepath.Base(s) == ".." })
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func backupOf(t *testing.T, ctx context.Context, f *fake) (source.LiveImage, *source.Snapshot, error) {
	t.Helper()
	t.Setenv(helperEnv, "1")
	i := disk(t, t.TempDir())
	b, err := os.ReadFile(i.Path)
	if err != nil {
		t.Fatal(err)
	}
	f.write("disk", string(b))
	s, err := Backup{Libvirt: f, Helper: helper(), Log: quiet}.Snapshot(ctx, i)
	return i, s, err
}

func TestBackup(t *testing.T) {
	f := newFake(t)
	i, s, err := backupOf(t, t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	sameFiles(t, i.Path, s.Name)
	want := `<domainbackup mode="push"><disks><disk name="vda" type="file" backup="yes"><driver type="raw"></driver>` +
		`<target file="` + s.Name + `"></target></disk></disks></domainbackup>`
	if got := f.read("request.xml"); got != want {
		t.Errorf("the request is\n%s\nwant\n%s", got, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	onlyDisk(t, filepath.Dir(i.Path))
}

// TestBackupKilled kills the process that has what libvirt wrote and has not yet made it the copy.
func TestBackupKilled(t *testing.T) {
	f := newFake(t)
	i := disk(t, t.TempDir())
	f.write("disk", "data")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperBackup$")
	cmd.Env = append(os.Environ(), helperEnv+"="+i.Path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.eventually("written", func() bool { return f.read("written") != "" })
	if hidden, _ := filepath.Glob(filepath.Dir(i.Path) + "/.copy.img*"); len(hidden) != 1 {
		t.Errorf("%q is where libvirt was to write", hidden)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	f.eventually("tidy", func() bool {
		hidden, _ := filepath.Glob(filepath.Dir(i.Path) + "/.copy.img*")
		return len(hidden) == 0
	})
}

// TestHelperBackup has a backup made and hangs.
func TestHelperBackup(t *testing.T) {
	path := os.Getenv(helperEnv)
	if path == "" || path == "1" {
		return
	}
	f := &fake{t, os.Getenv(fakeEnv)}
	i := source.LiveImage{
		Path: path, Target: filepath.Join(filepath.Dir(path), "copy.img"),
		Uses: []guard.Use{{Domain: "vm", Target: "vda", Role: guard.RoleDisk, Writable: true}},
	}
	if _, err := (Backup{Libvirt: f, Helper: helper(), Log: quiet}).Snapshot(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	f.write("written", "yes")
	time.Sleep(time.Minute) // to be killed in; select {} would be a deadlock, and end us
}

func TestBackupFreezesTheGuest(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	f.write("agent", "")
	i := disk(t, t.TempDir())
	f.write("disk", "data")
	s, err := Backup{Libvirt: f, Helper: helper(), Log: quiet}.Snapshot(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	calls := f.calls()
	freeze, begin, thaw := slices.Index(calls, "freeze"), slices.Index(calls, "backup"), slices.Index(calls, "thaw")
	if freeze < 0 || freeze > begin || begin > thaw {
		t.Errorf("libvirt was asked for %q: freeze, begin, thaw is the order", calls)
	}
}

func TestBackupFails(t *testing.T) {
	t.Setenv("BACKUP", "Failed")
	i, _, err := backupOf(t, t.Context(), newFake(t))
	if err == nil || !strings.Contains(err.Error(), `"Failed"`) {
		t.Errorf("error %v", err)
	}
	onlyDisk(t, filepath.Dir(i.Path))
}

func TestBackupInterrupted(t *testing.T) {
	t.Setenv("BACKUP", "Unbounded")
	reason := errors.New("enough")
	f := newFake(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		for f.read("job") != "Unbounded" && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(reason)
	}()
	i, _, err := backupOf(t, ctx, f)
	cancel(nil) // it may have failed before it began
	<-begun
	if !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
	if got := f.read("job"); got != "Cancelled" {
		t.Errorf("the job is %s: it goes on without anybody waiting for it", got)
	}
	onlyDisk(t, filepath.Dir(i.Path))
}

func TestWhoCannotBeStopped(t *testing.T) {
	f := newFake(t)
	i := disk(t, t.TempDir())
	i.Uses = []guard.Use{{Role: guard.RoleDisk, Evidence: guard.EvidenceProcess, PID: 4711}}
	for _, way := range []source.Live{Suspend{Libvirt: f, Helper: helper(), Log: quiet}, Backup{Libvirt: f, Helper: helper(), Log: quiet}} {
		if _, err := way.Snapshot(t.Context(), i); err == nil {
			t.Errorf("%T: no error for a QEMU without libvirt", way)
		}
	}
	i.Uses = []guard.Use{{Domain: "a", Target: "vda", Role: guard.RoleDisk}, {Domain: "b", Target: "vdb", Role: guard.RoleDisk}}
	if _, err := (Backup{Libvirt: f, Helper: helper(), Log: quiet}).Snapshot(t.Context(), i); err == nil || !strings.Contains(err.Error(), "share this disk") {
		t.Errorf("a shared disk: error %v", err)
	}
}
