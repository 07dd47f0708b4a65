// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/copy/source"
)

func TestDeviceDestination(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, imageSize)
	dev := testvol.Device(t, deviceSize)
	dirty(t, dev)
	if _, err := tryCopy(image, dev, nil); !errors.Is(err, dest.ErrExists) {
		t.Errorf("without --overwrite: error %v", err)
	}
	var asked string
	mustCopy(t, image, dev, func(o *Options) {
		o.Overwrite = dest.Replace
		o.Confirm = func(_ context.Context, what string) error { asked = what; return nil }
	})
	testimg.Same(t, image, dev)
	if !strings.Contains(asked, dev) || !strings.Contains(asked, "no known contents") {
		t.Errorf("the person was asked about %q", asked)
	}
	behind := []byte(testimg.Content(t, dev))[imageSize:]
	if move.IsZero(behind[:4096]) {
		t.Error("what follows the image on the device was changed")
	}
}

func TestDeviceIsNotTouched(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, imageSize)
	overwrite := func(o *Options) { o.Overwrite = dest.Replace }

	dev := testvol.Device(t, testvol.MinSize)
	dir := testvol.MountDevice(t, "xfs", dev)
	if _, err := tryCopy(image, dev, overwrite); !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("mounted: error %v", err)
	}

	small := testvol.Device(t, imageSize-512)
	dirty := testimg.Noise(testimg.Random(1), 4096)
	if err := os.WriteFile(small, dirty, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := tryCopy(image, small, overwrite); !errors.Is(err, move.ErrNoSpace) {
		t.Errorf("too small: error %v", err)
	}
	no := errors.New("no")
	_, err := tryCopy(image, dev2(t), func(o *Options) {
		o.Overwrite = dest.Replace
		o.Confirm = func(context.Context, string) error { return no }
	})
	if !errors.Is(err, no) {
		t.Errorf("the person said no: error %v", err)
	}

	held := testvol.Device(t, deviceSize)
	fd, err := unix.Open(held, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := tryCopy(image, held, overwrite); !errors.Is(err, source.ErrInUse) {
		t.Errorf("opened exclusively by another: error %v", err)
	}

	locked := testvol.Device(t, deviceSize, "--read-only")
	if _, err := tryCopy(image, locked, overwrite); err == nil {
		t.Error("write-protected: no error")
	}

	used := testvol.Device(t, deviceSize)
	if _, err := tryCopy(image, used, func(o *Options) { o.Overwrite, o.Users = dest.Replace, testimg.UsedBy(t, used, true) }); !errors.Is(err, source.ErrInUse) {
		t.Errorf("a domain's disk: error %v", err)
	}
	if got := testimg.Content(t, small)[:4096]; got != string(dirty) {
		t.Error("a refused copy wrote something")
	}
}

func dev2(t *testing.T) string { return testvol.Device(t, deviceSize) }

// TestLoopIsItsFile: a loop device and the file behind it are one image, and an attached file is in use.
func TestLoopIsItsFile(t *testing.T) {
	src, _ := testimg.Dirs(t)
	other := testimg.New(t, src+"/image", 1, mib)
	file := testvol.File(t, 2*mib)
	dev := testvol.Attach(t, file)
	overwrite := func(o *Options) { o.Overwrite = dest.InPlace }
	if _, err := tryCopy(file, dev, overwrite); err == nil || !strings.Contains(err.Error(), "have bytes in common") {
		t.Errorf("onto its own loop device: error %v", err)
	}
	if _, err := tryCopy(dev, file, overwrite); err == nil || !strings.Contains(err.Error(), "have bytes in common") {
		t.Errorf("from its own loop device: error %v", err)
	}
	if _, err := tryCopy(other, file, overwrite); !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), dev) {
		t.Errorf("onto an attached file: error %v", err)
	}
}

// TestStandardOutputIsMounted: the error says where, and offers no name below /proc.
func TestStandardOutputIsMounted(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	dev := testvol.Device(t, 16*mib)
	dir := testvol.MountDevice(t, "ext4", dev)
	out, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer func(was *os.File) { os.Stdout = was }(os.Stdout)
	os.Stdout = out
	if _, err := tryCopy(image, "-", nil); !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), "mounted on "+dir) ||
		!strings.Contains(err.Error(), "nothing was written") || strings.Contains(err.Error(), "/proc") {
		t.Errorf("error %v", err)
	}
}

// TestNoSpace: found out before, nothing is begun; found out while copying, nothing is left.
func TestNoSpace(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 24*mib)
	dir := testvol.Mount(t, "ext4", 16*mib)
	if _, err := tryCopy(image, dir+"/copy", nil); !errors.Is(err, move.ErrNoSpace) || !strings.Contains(err.Error(), "the copy needs 24.0 MiB") {
		t.Errorf("known before: error %v", err)
	}
	testimg.OnlyHolds(t, dir)

	fits := twoParts(t, src+"/fits")
	for _, sync := range []bool{true, false} {
		_, err := tryCopy(fits, dir+"/copy", func(o *Options) {
			o.Sync = sync
			o.Requests = 1
			during(o, func() { testimg.Dense(t, dir+"/filler", int64(free(t, dir))/(64*kib)*(64*kib)-mib) })
		})
		if !errors.Is(err, move.ErrNoSpace) {
			t.Errorf("sync %v, found out meanwhile: error %v", sync, err)
		}
		testimg.OnlyHolds(t, dir, "filler")
		testimg.Remove(t, dir+"/filler")
	}
}

// TestSpaceForWhatIsNoZeroes: written zeroes need no room, in a file or on a device, and a plan refuses what a copy refuses.
func TestSpaceForWhatIsNoZeroes(t *testing.T) {
	src, _ := testimg.Dirs(t)
	dir := testvol.Mount(t, "ext4", 16*mib)
	zeroes := testimg.Write(t, src+"/zeroes", string(make([]byte, 64*mib))+"and data")
	dev := testvol.Device(t, 64*mib)
	if err := os.WriteFile(dev, testimg.Noise(testimg.Random(1), 3*mib), 0); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{zeroes, dev} {
		mustCopy(t, image, dir+"/copy", nil)
		testimg.Same(t, image, dir+"/copy")
		testimg.Remove(t, dir+"/copy")
	}
	image := testimg.Dense(t, src+"/image", 24*mib)
	for _, from := range []string{image, zeroes} {
		refuse := func(o *Options) { o.KeepZeroes = true }
		o := Defaults()
		refuse(&o)
		planned := Plan(t.Context(), from, dir+"/copy", o, func(move.Step) {})
		if _, err := tryCopy(from, dir+"/copy", refuse); !errors.Is(err, move.ErrNoSpace) || !errors.Is(planned, move.ErrNoSpace) {
			t.Errorf("%s, zeroes kept: error %v, planned: %v", from, err, planned)
		}
	}
	testimg.OnlyHolds(t, dir)
}

func free(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree * uint64(st.Frsize)
}

// TestMountedSource: a device that is mounted changes while it is copied, by the copy itself if that is on it.
func TestMountedSource(t *testing.T) {
	_, dst := testimg.Dirs(t)
	dev := testvol.Device(t, testvol.MinSize)
	dir := testvol.MountDevice(t, "ext4", dev)
	if _, err := tryCopy(dev, dir+"/copy", nil); err == nil || !strings.Contains(err.Error(), "is on a file system on "+dev) {
		t.Errorf("onto itself: error %v", err)
	}
	testimg.OnlyHolds(t, dir)
	var log testimg.Log
	mustCopy(t, dev, dst+"/copy", func(o *Options) { o.Log = log.Logger() })
	if !log.Has("mounted on " + dir) {
		t.Errorf("no warning that it is mounted: %q", log.Lines)
	}
}

// TestReflinkNeedsNoSpace: a clone fits where a copy would not.
func TestReflinkNeedsNoSpace(t *testing.T) {
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	image := testimg.Dense(t, dir+"/image", (int64(st.Bavail)*st.Bsize*2/3)&^(mib-1))
	unix.Sync() // btrfs counts what is allocated then
	r := mustCopy(t, image, dir+"/clone", nil)
	if r.Method != move.MethodClone {
		t.Errorf("copied by %s", r.Method)
	}
	if _, err := tryCopy(image, dir+"/copy", func(o *Options) { o.Reflink = Never }); !errors.Is(err, move.ErrNoSpace) {
		t.Errorf("without reflinks: error %v, want ErrNoSpace", err)
	}
	testimg.OnlyHolds(t, dir, "image", "clone")
}
