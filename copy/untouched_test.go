// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/manifest"
	"imgward/copy/move"
	"imgward/copy/rescue"
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
}

// TestResumeOntoStaleBytes: what a killed run wrote beyond its last checkpoint is unknown. The source is a device, whose times
// say nothing, and has become zeroes there.
func TestResumeOntoStaleBytes(t *testing.T) {
	for name, overwrite := range map[string]dest.Overwrite{
		"new": dest.Refuse, "replace": dest.Replace, "in-place": dest.InPlace, "device": dest.Replace,
	} {
		for _, kind := range testvol.Kinds {
			src, dst := testimg.Dirs(t)
			from := testvol.Attach(t, testimg.New(t, src+"/image", 17, resumeSize))
			to := testvol.Mount(t, kind, testvol.MinSize) + "/copy"
			switch {
			case name == "device" && kind != testvol.Kinds[0]:
				continue
			case name == "device":
				to = testvol.Device(t, resumeSize)
			case overwrite != dest.Refuse:
				testimg.Dense(t, to, resumeSize/2)
			}
			change := func(o *Options) { o.Overwrite, o.StateDir = overwrite, dst }
			interrupted(t, from, to, change)
			states, _ := filepath.Glob(filepath.Dir(to) + "/.copy.imgcp-state")
			if name == "device" {
				states, _ = filepath.Glob(dst + "/*.state")
			}
			if len(states) != 1 {
				t.Fatalf("%s on %s: states %q", name, kind, states)
			}
			state, err := checkpoint.Load(states[0])
			if err != nil {
				t.Fatal(err)
			}
			state.Durable = 4 * mib // as a kill leaves it, who saves none at the end
			if err := state.Save(states[0]); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(from, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(make([]byte, resumeSize-4*mib), 4*mib)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			if r := resumed(t, from, to, change); r.Resumed != 4*mib {
				t.Errorf("%s on %s: went on from %d", name, kind, r.Resumed)
			}
		}
	}
}

// TestSidecarReadOnly: a copy of hours does not end with a manifest that could never have been written.
func TestSidecarReadOnly(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	image := testimg.New(t, src+"/image", 1, mib)
	if _, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Manifest = dir + "/manifest" }); !errors.Is(err, unix.EROFS) {
		t.Errorf("error %v", err)
	}
	testimg.OnlyHolds(t, dst)
}

// TestSidecarNameTaken: an image that took the name of the manifest, or of the map, while the copy ran is not replaced; an
// earlier manifest or map is.
func TestSidecarNameTaken(t *testing.T) {
	for _, c := range []struct {
		magic  string
		option func(o *Options, path string)
	}{
		{manifest.Magic, func(o *Options, path string) { o.Manifest = path }},
		{rescue.Magic, func(o *Options, path string) { o.Map, o.OnError = path, Zero }},
	} {
		for _, was := range []string{"", c.magic + " an earlier one"} {
			src, dst := testimg.Dirs(t)
			from := src + "/image"
			twoParts(t, from)
			if c.magic == rescue.Magic {
				from = testfault.MountBad(t, src, mib, 8*kib, 0) + "/image"
			}
			beside := dst + "/beside"
			if was != "" {
				testimg.Write(t, beside, was)
			}
			_, err := tryCopy(from, dst+"/copy", func(o *Options) {
				c.option(o, beside)
				during(o, func() {
					_ = os.Remove(beside)
					testimg.Write(t, beside, "an image that somebody copied there")
				})
			})
			if !errors.Is(err, dest.ErrExists) {
				t.Errorf("taken meanwhile: error %v", err)
			}
			if got := testimg.Content(t, beside); got != "an image that somebody copied there" {
				t.Errorf("taken meanwhile: it holds %.40q", got)
			}
			testimg.OnlyHolds(t, dst, "beside", "copy")
		}
	}
}

// TestResumeWithoutRoom: what an earlier copy left is there also after a second one that found the disk full.
func TestResumeWithoutRoom(t *testing.T) {
	dst := testvol.Mount(t, "ext4", 64*mib)
	image := testimg.New(t, t.TempDir()+"/image", 14, resumeSize)
	interrupted(t, image, dst+"/copy", nil)
	testimg.Dense(t, dst+"/others", int64(free(t, dst))-2*mib)
	if _, err := tryCopy(image, dst+"/copy", func(o *Options) {
		*o = resuming()
		o.Preallocate = true // refused before a byte is written
	}); !errors.Is(err, move.ErrNoSpace) {
		t.Fatalf("onto a full disk: error %v", err)
	}
	testimg.Remove(t, dst+"/others")
	if r := resumed(t, image, dst+"/copy", nil); r.Resumed == 0 {
		t.Error("everything was copied again")
	}
}
