// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/manifest"
	"imgward/copy/rescue"
)

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
