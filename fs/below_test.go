// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// TestDirectoryAboveAnImage: an image in use keeps each directory above any of its names from being renamed: the kernel
// may know the file by another name, and a path may be longer than the kernel takes.
func TestDirectoryAboveAnImage(t *testing.T) {
	l := newLive(t)
	for _, dir := range []string{"dir", "idle"} {
		if err := os.Mkdir(l.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.backing+"/dir/vm.img", nil, 0o644); err != nil { // the kernel shall not know this name
		t.Fatal(err)
	}
	l.write(t, "idle/other.img")
	deep := makeDeep(t, filepath.Join(l.backing, "deep"), 40)
	if err := os.Link(l.backing+"/dir/vm.img", l.backing+"/alias.img"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.path("alias.img")); err != nil {
		t.Fatal(err)
	}
	use := func(st *unix.Stat_t, path string) {
		id := guard.StatID(st)
		inUse := map[guard.ID][]guard.Use{id: {{Domain: "vm", Path: path}}}
		l.guard.answer(inUse, func(r *guard.Request) guard.Verdict {
			return guard.Verdict{Allowed: r.Op != guard.OpRenameDir || r.Image != id, Errno: syscall.EBUSY}
		})
	}
	var st unix.Stat_t
	if err := unix.Stat(l.backing+"/alias.img", &st); err != nil {
		t.Fatal(err)
	}
	use(&st, l.path("alias.img"))
	if err := os.Rename(l.path("dir"), l.path("dir2")); err != unwrapped(syscall.EBUSY, err) {
		t.Errorf("a directory with another name of an image in use: %v, want EBUSY", err)
	}
	if err := os.Rename(l.path("idle"), l.path("idle2")); err != nil {
		t.Error(err)
	}
	if err := unix.Fstat(deep, &st); err != nil {
		t.Fatal(err)
	}
	unix.Close(deep)
	use(&st, l.path("alias.img"))
	if err := os.Rename(l.path("deep"), l.path("deep2")); err != unwrapped(syscall.EBUSY, err) {
		t.Errorf("a directory with an image in use far below: %v, want EBUSY", err)
	}
}

// TestDirectoryAboveAnImageNamedElsewhere: the only path that the evidence has may lead past the view, as where the domain
// names its disk by another mount of the same directory.
func TestDirectoryAboveAnImageNamedElsewhere(t *testing.T) {
	l := newLive(t)
	if err := os.Mkdir(l.backing+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	image := l.backing + "/dir/vm.img" // which the kernel does not know by the view
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		t.Fatal(err)
	}
	l.guard.answer(map[guard.ID][]guard.Use{guard.StatID(&st): {{Domain: "vm", Path: image}}}, func(r *guard.Request) guard.Verdict {
		return guard.Verdict{Allowed: r.Op != guard.OpRenameDir, Errno: syscall.EBUSY}
	})
	if err := os.Rename(l.path("dir"), l.path("dir2")); err != unwrapped(syscall.EBUSY, err) {
		t.Errorf("rename: %v, want EBUSY", err)
	}
}

// unwrapped is err, if no is behind it.
func unwrapped(no syscall.Errno, err error) error {
	if errno(err) == no {
		return err
	}
	return no
}

// makeDeep makes directories with names of 200 bytes, one in the other, and a file in the last, past the view. The file is
// the backing one.
func makeDeep(t *testing.T, path string, depth int) (fd int) {
	t.Helper()
	dir, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for name := "deep"; err == nil && depth > 0; depth, name = depth-1, strings.Repeat("d", 200) {
		err = unix.Mkdirat(dir, name, 0o755)
		if err == nil {
			up := dir
			dir, err = unix.Openat(up, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(up)
		}
	}
	if err == nil {
		fd, err = unix.Openat(dir, "image", unix.O_CREAT|unix.O_RDWR, 0o644)
		unix.Close(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
