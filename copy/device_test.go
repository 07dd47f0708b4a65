package imgcopy

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/testvol"
)

func TestDeviceDestination(t *testing.T) {
	src, _ := dirs(t)
	image := newImage(t, src+"/image", 1, imageSize)
	dev := testvol.Device(t, deviceSize)
	dirty(t, dev)
	if _, err := tryCopy(image, dev, nil); !errors.Is(err, ErrExists) {
		t.Errorf("without --overwrite: error %v", err)
	}
	var asked string
	mustCopy(t, image, dev, func(o *Options) {
		o.Overwrite = Replace
		o.Confirm = func(_ context.Context, what string) error { asked = what; return nil }
	})
	sameBytes(t, image, dev)
	if !strings.Contains(asked, dev) || !strings.Contains(asked, "no known contents") {
		t.Errorf("the person was asked about %q", asked)
	}
	behind := []byte(content(t, dev))[imageSize:]
	if allZero(behind[:4096]) {
		t.Error("what follows the image on the device was changed")
	}
}

func TestDeviceIsNotTouched(t *testing.T) {
	src, _ := dirs(t)
	image := newImage(t, src+"/image", 1, imageSize)
	overwrite := func(o *Options) { o.Overwrite = Replace }

	dev := testvol.Device(t, testvol.MinSize)
	dir := testvol.MountDevice(t, "xfs", dev)
	if _, err := tryCopy(image, dev, overwrite); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("mounted: error %v", err)
	}

	small := testvol.Device(t, imageSize-512)
	dirty := noise(random(1), 4096)
	if err := os.WriteFile(small, dirty, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := tryCopy(image, small, overwrite); !errors.Is(err, ErrNoSpace) {
		t.Errorf("too small: error %v", err)
	}
	no := errors.New("no")
	_, err := tryCopy(image, dev2(t), func(o *Options) {
		o.Overwrite = Replace
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
	if _, err := tryCopy(image, held, overwrite); !errors.Is(err, ErrInUse) {
		t.Errorf("opened exclusively by another: error %v", err)
	}

	locked := testvol.Device(t, deviceSize, "--read-only")
	if _, err := tryCopy(image, locked, overwrite); err == nil {
		t.Error("write-protected: no error")
	}

	used := testvol.Device(t, deviceSize)
	if _, err := tryCopy(image, used, func(o *Options) { o.Overwrite, o.Users = Replace, usedBy(t, used, true) }); !errors.Is(err, ErrInUse) {
		t.Errorf("a domain's disk: error %v", err)
	}
	if got := content(t, small)[:4096]; got != string(dirty) {
		t.Error("a refused copy wrote something")
	}
}

func dev2(t *testing.T) string { return testvol.Device(t, deviceSize) }

// TestLoopIsItsFile: a loop device and the file behind it are one image, and an attached file is in use.
func TestLoopIsItsFile(t *testing.T) {
	src, _ := dirs(t)
	other := newImage(t, src+"/image", 1, mib)
	file := testvol.File(t, 2*mib)
	dev := testvol.Attach(t, file)
	overwrite := func(o *Options) { o.Overwrite = InPlace }
	if _, err := tryCopy(file, dev, overwrite); err == nil || !strings.Contains(err.Error(), "the same image") {
		t.Errorf("onto its own loop device: error %v", err)
	}
	if _, err := tryCopy(dev, file, overwrite); err == nil || !strings.Contains(err.Error(), "the same image") {
		t.Errorf("from its own loop device: error %v", err)
	}
	if _, err := tryCopy(other, file, overwrite); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dev) {
		t.Errorf("onto an attached file: error %v", err)
	}
}

// TestNoSpace: found out before, nothing is begun; found out while copying, nothing is left.
func TestNoSpace(t *testing.T) {
	src, _ := dirs(t)
	image := dense(t, src+"/image", 24*mib)
	dir := testvol.Mount(t, "ext4", 16*mib)
	if _, err := tryCopy(image, dir+"/copy", nil); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "the copy needs 24.0 MiB") {
		t.Errorf("known before: error %v", err)
	}
	onlyHolds(t, dir)

	fits := twoParts(t, src+"/fits")
	for _, sync := range []bool{true, false} {
		_, err := tryCopy(fits, dir+"/copy", func(o *Options) {
			o.Sync = sync
			o.Requests = 1
			during(o, func() { dense(t, dir+"/filler", int64(free(t, dir))/(64*kib)*(64*kib)-mib) })
		})
		if !errors.Is(err, ErrNoSpace) {
			t.Errorf("sync %v, found out meanwhile: error %v", sync, err)
		}
		onlyHolds(t, dir, "filler")
		remove(t, dir+"/filler")
	}
}

func free(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree * uint64(st.Frsize)
}
