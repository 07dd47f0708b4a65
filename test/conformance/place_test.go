// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
	"imgward/test/need"
)

// place is one directory that the tests run in.
type place struct {
	name string
	dir  string
	// backing is the same directory below the view; empty when it is shown by no FUSE file system.
	backing string
	// fstype is the kind of file system at the bottom, "" when it is not ours.
	fstype string
	// scratch is the file system itself, which may be turned read-only; nil when it is not ours.
	scratch *target.Scratch
	mount   *target.Mount
}

// kind is what a case's conditions call the place: "native" or "view".
func (p *place) kind() string {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
		return "view"
	}
	return "native"
}

// data says who moves the bytes: "kernel" for a native file system and for passthrough, else "daemon".
func (p *place) data() string {
	if p.kind() == "native" || p.name == target.View.Name {
		return "kernel"
	}
	return "daemon"
}

const (
	scratchSize = 4 << 30
	// smallSize is the least that all of ext4 and btrfs can be made in; it is mounted inside the backing tree, so that
	// tests have a submount, and one that is soon full.
	smallSize = 120 << 20
)

// atPlaces runs a test on each target: through the view in its two modes and, under make test-all, natively, unless the
// environment names others.
func atPlaces(t *testing.T, test func(t *testing.T, p *place)) {
	if dir := os.Getenv("IMGWARD_TEST_DIR"); dir != "" {
		t.Run("given", func(t *testing.T) { test(t, givenPlace(t, dir)) })
		return
	}
	names := "view,view-nopassthrough"
	if need.All() {
		names = "native," + names
	}
	if set := os.Getenv("IMGWARD_TEST_TARGETS"); set != "" {
		names = set
	}
	for _, name := range strings.Split(names, ",") {
		t.Run(name, func(t *testing.T) { test(t, newPlace(t, name)) })
	}
}

func givenPlace(t *testing.T, dir string) *place {
	own, err := os.MkdirTemp(dir, "conformance-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(own) })
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	return &place{name: "given", dir: own}
}

// newPlace makes a scratch file system, and a mount over it unless it is the native control. It is all gone, and that
// is checked, when the test ends.
func newPlace(t *testing.T, name string) *place {
	return newPlaceOn(t, name, cmp.Or(os.Getenv("IMGWARD_TEST_FS"), "ext4"))
}

func newPlaceOn(t *testing.T, name, fstype string) *place {
	work := workDir(t)
	under := fstype
	if fstype == "overlay" {
		under = "ext4"
	}
	scratch := newScratch(t, filepath.Join(work, "fs.img"), filepath.Join(work, "fs"), under, scratchSize)
	tree := filepath.Join(scratch.Dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if fstype == "overlay" {
		newOverlay(t, tree)
	}
	newScratch(t, filepath.Join(work, "small.img"), filepath.Join(tree, "small"), "ext4", smallSize)
	if name == "native" {
		return &place{name: name, dir: tree, fstype: fstype, scratch: scratch}
	}
	peer, err := target.PeerNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	mount := startPeer(t, peer, work, tree)
	return &place{name: name, dir: mount.Dir, backing: tree, fstype: fstype, scratch: scratch, mount: mount}
}

// workDir is a directory that every user can reach into, unlike t.TempDir.
func workDir(t *testing.T) string {
	work, err := os.MkdirTemp("", "imgward-conformance-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not RemoveAll: if a file system is still mounted below, its contents are not ours to delete.
		if err := removeOwn(work); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	if err := os.Chmod(work, 0o755); err != nil {
		t.Fatal(err)
	}
	return work
}

func removeOwn(work string) error {
	for _, name := range []string{"fs", "view"} {
		if err := os.Remove(filepath.Join(work, name)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return os.RemoveAll(work)
}

func newScratch(t *testing.T, image, dir, fstype string, size int64) *target.Scratch {
	s, err := target.NewScratch(t.Context(), image, dir, fstype, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newOverlay(t *testing.T, dir string) {
	o, err := target.NewOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
}

func startPeer(t *testing.T, peer target.Peer, work, tree string) *target.Mount {
	tools := os.Getenv(toolsEnv)
	if err := peer.Build(t.Context(), tools); err != nil {
		t.Fatal(err)
	}
	mount, err := peer.Start(tools, tree, filepath.Join(work, "view"))
	if err != nil {
		t.Fatal(err)
	}
	before := settledFiles(mount)
	t.Cleanup(func() {
		if strings.HasPrefix(peer.Name, target.View.Name) {
			checkDaemon(t, mount, before)
		}
		if err := mount.Close(); err != nil {
			t.Error(err)
		}
	})
	return mount
}

// settledFiles waits until the daemon has opened all that it opens for itself, some of it after it serves: the number
// of its files must have stood still for a second (a quarter was too short on a machine with a load of 20).
func settledFiles(mount *target.Mount) []string {
	files := mount.OpenFiles()
	for still := 0; still < 100; still++ {
		time.Sleep(10 * time.Millisecond)
		now := mount.OpenFiles()
		if len(now) != len(files) {
			files, still = now, 0
		}
	}
	return files
}

// checkDaemon looks for what our daemon must not have at the end: a complaint in its log, a descriptor that it did not
// have at the start. Releases and forgets come after close(2) and the drop of caches have returned, so it may wait.
func checkDaemon(t *testing.T, mount *target.Mount, before []string) {
	for _, line := range strings.Split(mount.Log(), "\n") {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("the daemon complained: %s", line)
		}
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0o200); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(60 * time.Second)
	after := mount.OpenFiles()
	for len(after) > len(before) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		after = mount.OpenFiles()
	}
	if len(after) > len(before) {
		slices.Sort(after)
		t.Errorf("the daemon had %d files open at the start and has %d now:\n%s", len(before), len(after), strings.Join(after, "\n"))
	}
}
