// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
)

// TestRefusedInPlace: what is refused has not touched what it would have been written into.
func TestRefusedInPlace(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 24*mib)
	dir := testvol.Mount(t, "ext4", 16*mib)
	for _, c := range []struct {
		name   string
		want   error // nil: any
		change func(o *Options)
	}{
		{"without room", move.ErrNoSpace, func(o *Options) {}},
		{"without room for every block", move.ErrNoSpace, func(o *Options) { o.Preallocate = true }},
		{"without reflinks", nil, func(o *Options) { o.Reflink = Always }},
		{"without room to resume", nil, func(o *Options) { o.Resume = true }},
	} {
		old := testimg.Write(t, dir+"/old.img", "what was there")
		change := func(o *Options) { o.Overwrite = dest.InPlace; c.change(o) }
		o := Defaults()
		change(&o)
		planned := Plan(t.Context(), image, old, o, func(move.Step) {})
		_, err := tryCopy(image, old, change)
		if errors.Is(planned, move.ErrNoSpace) != errors.Is(err, move.ErrNoSpace) {
			t.Errorf("%s: planned %v, done %v", c.name, planned, err)
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if got := testimg.Content(t, old); got != "what was there" {
			t.Errorf("%s: it holds %d other bytes", c.name, len(got))
		}
	}
}

// TestRefusedOnBtrfs: what btrfs keeps for its metadata is no room for root either.
func TestRefusedOnBtrfs(t *testing.T) {
	src, _ := testimg.Dirs(t)
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	testvol.Run(t, "fallocate", "-l", fmt.Sprint(int64(st.Bavail)*st.Frsize-32*mib), dir+"/full")
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	image := testimg.Dense(t, src+"/image", int64(st.Bavail+st.Bfree)/2*st.Frsize)
	old := testimg.Write(t, dir+"/old.img", "what was there")
	_, err := tryCopy(image, old, func(o *Options) { o.Overwrite = dest.InPlace })
	if got := testimg.Content(t, old); !errors.Is(err, move.ErrNoSpace) || got != "what was there" {
		t.Errorf("error %v; it holds %d bytes", err, len(got))
	}
}

// TestRoomOnBtrfs: what was removed a moment ago is free when the transaction has been committed, and not refused before.
func TestRoomOnBtrfs(t *testing.T) {
	src, _ := testimg.Dirs(t)
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	image := testimg.Dense(t, src+"/image", 64*mib)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	testimg.Dense(t, dir+"/full", (int64(st.Bavail)*st.Frsize-32*mib)&^(mib-1))
	unix.Sync()
	testimg.Remove(t, dir+"/full")
	mustCopy(t, image, dir+"/copy", nil)
}

// TestRefusedByFileSystem: what only the file system can refuse is asked before the old contents go.
func TestRefusedByFileSystem(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", mib)
	large := testimg.Dense(t, src+"/large", mib)
	if err := os.Truncate(large, 20<<30); err != nil {
		t.Fatal(err)
	}
	dir := testvol.Mount(t, "ext4-blocks", 16*mib)
	if err := os.Mkdir(dir+"/.old.img.imgcp-state.new", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from   string
		change func(o *Options)
	}{
		"its state cannot be kept":    {image, func(o *Options) { o.Resume = true }},
		"the file would be too large": {large, func(o *Options) {}},
		"blocks cannot be reserved":   {image, func(o *Options) { o.Preallocate = true }},
	} {
		old := testimg.Write(t, dir+"/old.img", "what was there")
		if _, err := tryCopy(c.from, old, func(o *Options) { o.Overwrite = dest.InPlace; c.change(o) }); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if got := testimg.Content(t, old); got != "what was there" {
			t.Errorf("%s: it holds %d other bytes", name, len(got))
		}
	}
	o := Defaults()
	o.Preallocate = true
	planned := Plan(t.Context(), image, dir+"/new.img", o, func(move.Step) {})
	_, err := tryCopy(image, dir+"/new.img", func(o *Options) { o.Preallocate = true })
	for _, err := range []error{planned, err} {
		if err == nil || !strings.Contains(err.Error(), "--preallocate: the file system of "+dir+"/new.img") {
			t.Errorf("blocks cannot be reserved for a new file: error %v", err)
		}
	}
}
